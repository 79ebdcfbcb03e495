"""sipfw: one policy file becomes a layered SIP firewall."""

__version__ = "0.1.0"
