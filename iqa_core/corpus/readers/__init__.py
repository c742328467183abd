"""One module per kind of source, each with the same two functions (see `open_chunk` for who calls them).

    survey(storage, source, options, exact) -> Survey     at plan time: how it is cut and what it carries, from headers
    read(storage, chunk, options, limits) -> Content      in a reader: its images in a fixed order

Both raise Missing, Forbidden or FetchFailed when the source as a whole cannot be read.
"""
