"""Whom this host's own files call a gateway, a trunk or a friend; read for `init` and `check`."""
