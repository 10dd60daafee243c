"""The engine through a pipe: MessagePack-RPC for programs in any language, and clients for Python."""
