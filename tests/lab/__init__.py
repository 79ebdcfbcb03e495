"""A laboratory of network namespaces for packet tests; it knows nothing about the firewall."""

from lab.channel import LabError
from lab.handles import Arrival, Family, Sink, TcpConnection, UdpSocket
from lab.laboratory import Host, Lab, Switch
from lab.namespaces import sweep, unavailable_reason
from lab.node import CommandError, Node

__all__ = [
    "Arrival",
    "CommandError",
    "Family",
    "Host",
    "Lab",
    "LabError",
    "Node",
    "Sink",
    "Switch",
    "TcpConnection",
    "UdpSocket",
    "sweep",
    "unavailable_reason",
]
