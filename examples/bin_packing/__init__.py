"""Online bin packing, evolved: the example behind ``evocell demo``.

The engine runs, limits and scores programs; making new ones is the caller's job, so all of the
genetic programming lives here and uses nothing but the public API of evocell.
"""
