"""What the engine and its workers share: messages, the connection between them, the worker's interface."""
