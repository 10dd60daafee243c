"""An engine whose guests live on other machines, over any pool that can carry bytes to its nodes.

`protocol` says what such a pool must do; `evocell.integrations.dask` is one. A node, `node.NodeDoor`, lives
in a process of the pool and starts guest processes beside it. `host.ClusterHost` stays with the caller, with
all that an engine is beyond running guests: scoring, expected answers, what is remembered, lineage and store.
"""
