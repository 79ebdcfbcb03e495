"""A host whose kernel or iptables lacks something: files that hide others, in a mount namespace."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab import namespaces, warm
from sipfw.kernel.xtables.libiptc.patches import plugin_directory

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

# What iptables-nft 1.8.9 says on a kernel without the module (RHEL 9, xt_u32).
REFUSES_MATCH = """\
#!/bin/sh
program=${{0##*/}}
case $program in
*-restore) ;;
*) exec {folder}/"$program" "$@" ;;
esac
text=$(cat)
for name in {names}; do
	case $text in *"-m $name "* | *"-j $name "*)
		echo "Warning: Extension $name revision 0 not supported, missing kernel module?" >&2
		echo "$program: line 3: RULE_APPEND failed (No such file or directory): rule in chain P" >&2
		exit 4 ;;
	esac
done
printf '%s\\n' "$text" | {folder}/"$program" "$@"
"""
# What nft 1.0.6 says of an expression that the kernel does not have.
REFUSES_STATEMENT = """\
#!/bin/bash
case $* in
*-f*)
	text=$(cat)
	if found=$(grep -n -m 1 -E '{pattern}' <<<"$text"); then
		what="Error: Could not process rule: No such file or directory"
		echo "/dev/stdin:${{found%%:*}}:1-20: $what" >&2
		exit 1
	fi
	printf '%s\\n' "$text" | {real} "$@"
	exit
esac
exec {real} "$@"
"""


@dataclass
class LackingHost:
    """A network namespace and a file tree; `hidden` maps paths to what stands in their place."""

    namespace: str
    folder: Path
    hidden: dict[str, Path] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def env(self) -> dict[str, str]:
        return {"XTABLES_LOCKFILE": str(self.folder / "lock"), "SIPFW_ROOT": str(self.root)}

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        mounts = "".join(f"mount --bind {new} {old} && " for old, new in self.hidden.items())
        inside = ["unshare", "-m", "sh", "-c", f'{mounts}exec "$@"', "sh", *argv]
        return namespaces.run(self.namespace, inside, timeout=120, env=self.env)

    def sipfw(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        binds = {old: str(new) for old, new in self.hidden.items()}
        done = warm.run(self.namespace, words, env=self.env, binds=binds, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def rules(self) -> str:
        """Return everything that the kernel holds; the hidden programs are asked by others."""
        tools = ("iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ipset save")
        lists = "".join(f"{tool} 2>/dev/null; " for tool in tools)
        text = self.run("sh", "-c", f"{lists} nft list ruleset 2>/dev/null").stdout
        # Sets get another seed with each reading, and comments carry the time.
        return "\n".join(line for line in text.splitlines() if line[:1] not in {"#", "c"})

    def everything_is_there(self) -> None:
        self.hidden.clear()

    def is_a(self, system: str) -> None:
        self._hide("/etc/os-release", "os-release", system)

    def hides_libraries(self, names: Iterable[str]) -> None:
        """Leave iptables without its half of these extensions."""
        folder = plugin_directory("x86_64-linux-gnu")
        assert folder is not None
        empty = self.folder / "empty"
        empty.touch()
        for name in names:
            for prefix in ("xt", "ipt", "ip6t"):
                library = Path(folder, f"lib{prefix}_{name}.so")
                if library.exists():
                    self.hidden[str(library)] = empty

    def kernel_lacks(self, *names: str) -> None:
        """Have iptables-nft say of these extensions what it says without the kernel's half."""
        # All programs are one, which goes by the name that it is called by.
        multi = Path("/usr/sbin/xtables-nft-multi")
        folder = self.folder / "real"
        if not folder.exists():
            folder.mkdir()
            shutil.copy(multi, folder / "multi")
            for link in multi.parent.iterdir():
                if link.is_symlink() and link.resolve() == multi:
                    (folder / link.name).symlink_to("multi")
        self._hide(str(multi), "multi", REFUSES_MATCH.format(names=" ".join(names), folder=folder))

    def kernel_lacks_statement(self, pattern: str) -> None:
        """Have nft say of these statements what it says where the kernel has no module for them."""
        real = self.folder / "nft.real"
        if not real.exists():
            shutil.copy("/usr/sbin/nft", real)
        text = REFUSES_STATEMENT.format(pattern=pattern, real=real)
        self._hide("/usr/sbin/nft", "nft", text)

    def _hide(self, path: str, name: str, text: str) -> None:
        new = self.folder / name
        new.write_text(text)
        new.chmod(0o755)
        self.hidden[path] = new
