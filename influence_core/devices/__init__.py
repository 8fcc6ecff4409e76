"""What computes: devices, their memory, programs compiled for them."""
