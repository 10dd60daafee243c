"""Remote access to an engine: a MessagePack-RPC server for any language, and clients for Python."""
