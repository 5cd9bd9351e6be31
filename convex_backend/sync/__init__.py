"""The live socket: the sync protocol over WebSocket (``sync.md``)."""
