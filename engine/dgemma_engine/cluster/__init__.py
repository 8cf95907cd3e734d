"""One engine in each replica of a Ray Serve application; Ray places, routes to and replaces replicas."""
