"""What packets have left in the kernel: members of sets, limits, marks, arriving packets."""
