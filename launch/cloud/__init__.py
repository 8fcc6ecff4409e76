"""Jobs of Dataflow, Cloud Batch and Kubernetes."""
