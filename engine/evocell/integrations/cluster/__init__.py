"""Engines with guests on other machines, over any pool that can carry bytes to its nodes.

`protocol` defines the interface of such a pool; `evocell.integrations.dask` is one. A node, `node.NodeDoor`,
runs in a process of the pool and starts guest processes beside it. `host.ClusterHost` stays on the caller's
machine, with scoring, expected answers, memoised outcomes, lineage and store.
"""
