"""One module per kind of source, each with the same two functions; `iqa_core.corpus.reading` calls them.

    survey(storage, source, options, exact) -> Survey     in planning: how it is cut and which columns it has
    read(storage, chunk, options, limits) -> Content      in a reader: its images in an order that never changes

Both raise Missing, Forbidden or FetchFailed when the source as a whole cannot be read, and CallerError when none of its
columns can be the image. Selected rows are surveyed where they are drafted: in `iqa_core.corpus.plan.selected`.
"""
