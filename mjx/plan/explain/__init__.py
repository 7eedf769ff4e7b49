"""What lives where on a mesh: parameters and activations, as tables and drawings."""
