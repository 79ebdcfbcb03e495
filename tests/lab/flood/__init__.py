"""Floods of spoofed REGISTERs, the registrar under them, and the people who want to get in.

Nothing here knows which firewall is under test. Sender and registrar are programs of their own,
because one interpreter cannot send 20,000 datagrams a second and answer phones as well.
"""
