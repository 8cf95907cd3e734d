"""Access control: keys, hosts, origins, types and sizes of requests, time and number of connections."""
