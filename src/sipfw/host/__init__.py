"""This machine without its packet filter: files of ours, processes, sockets, routes, programs."""
