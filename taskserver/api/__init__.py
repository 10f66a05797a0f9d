"""One room per protocol. They reach the core through ``web.context`` only and never import each other."""
