"""What every command says where no firewall of sipfw is in force."""

from __future__ import annotations

NOTHING = "no firewall of sipfw is in force"
HINT = "make one live: sipfw apply"
