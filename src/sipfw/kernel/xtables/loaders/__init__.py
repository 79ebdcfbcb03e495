"""How rules of iptables get into the kernel: one loader for each kind of tables."""
