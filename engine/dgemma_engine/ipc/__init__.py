"""Inter-process communication: socket client, JSON-RPC, endpoint, lock file, process launch. Torch-free."""
