"""An endpoint as its clients know it: how it is asked, and what it answers."""
