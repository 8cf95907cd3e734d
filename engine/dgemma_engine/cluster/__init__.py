"""One engine in each replica of a Ray Serve application: placing, routing and replacing replicas is Ray's."""
