"""What only netlink can say to nf_tables, and what it tells."""
