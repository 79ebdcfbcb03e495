"""Loading python-iptables 1.2.0 and mending what is broken in it.

Only the worker process may call this: the import runs ldconfig, loads kernel modules where there
are any, and libxtables can end the process. Each patch says which defect it removes; the match
matrix in tests/netns proves all of them.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipfw.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_NFPROTO_IPV4 = 2
_PLUGIN = "libxt_udp.so"
_PLUGIN_DIRS = ("/usr/lib/*/xtables", "/usr/lib64/xtables", "/usr/lib/xtables", "/lib/xtables")


def plugin_directory(multiarch: str) -> str | None:
    """Find the directory with libxtables plugins, the interpreter's own architecture first."""
    found = [
        str(path)
        for pattern in _PLUGIN_DIRS
        for path in sorted(Path("/").glob(pattern.lstrip("/")))
        if (path / _PLUGIN).exists()
    ]
    # A host with foreign architectures has one such directory for each of them.
    own = [path for path in found if multiarch and f"/{multiarch}/" in path]
    return next(iter(own + found), None)


def has_library(folder: Path, name: str) -> bool:
    """Tell whether libxtables has its half of an extension."""
    # Links stand for extensions that one file serves (libxt_SET.so); an empty file serves none.
    files = (folder / f"lib{prefix}_{name}.so" for prefix in ("xt", "ipt", "ip6t"))
    return any(file.is_file() and file.stat().st_size for file in files)


def load_iptc() -> ModuleType:
    """Import python-iptables, patch it and return it; each way to fail has its own message."""
    try:
        with _nothing_but_ldconfig():
            iptc = importlib.import_module("iptc")
            xtables = importlib.import_module("iptc.xtables")
    except ModuleNotFoundError as error:
        raise BackendError(
            "python-iptables is not installed", hint="pip install python-iptables==1.2.0"
        ) from error
    except Exception as error:
        # The missing library shows as AttributeError, TypeError, XTablesError or OSError of
        # whatever statement touched it first.
        raise BackendError(*_import_failure(error)) from error
    _keep_udata(iptc)
    _walk_options_by_their_real_size(xtables)
    _stay_out_of_other_tables(iptc)
    return iptc


@contextmanager
def _nothing_but_ldconfig() -> Iterator[None]:
    """Let the import find its libraries without setuptools and without a compiler.

    It asks `distutils` for one folder, which a venv's setuptools stands in for and takes longer
    over than the whole rest; where there is none, as from Python 3.12, it asks sysconfig. Its own
    extension, which the linker never knows, is looked for with gcc and ld in /tmp first.
    """
    real, known = ctypes.util.find_library, sys.modules.get("distutils")
    ctypes.util.find_library = lambda name: None if "xtwrapper" in name else real(name)
    # None means "not to be imported".
    sys.modules["distutils"] = known  # type: ignore[assignment]
    try:
        yield
    finally:
        ctypes.util.find_library = real
        if known is None:
            del sys.modules["distutils"]


def fix_ipv6_entry(rule: Any) -> None:
    """Repair the kernel structure of an IPv6 rule after all its selectors are set.

    python-iptables fills the interface mask with 0x01 instead of 0xff, so that `-i eth2` also
    matches eth4 (its issue #244), and drops IP6T_F_PROTO for a negated protocol, without which
    the kernel does not look at the protocol at all. Listings show neither.
    """
    header = rule.entry.ipv6
    for field in ("iniface", "outiface"):
        mask = getattr(header, f"{field}_mask")
        setattr(header, f"{field}_mask", b"\xff" * len(mask))
    if header.proto:
        header.flags |= header.IP6T_F_PROTO


def _import_failure(error: Exception) -> tuple[str]:
    text = str(error)
    if isinstance(error, AttributeError) and "iptc_init" in text:
        cause = "libip4tc or libip6tc is missing; install package iptables (Debian: libip4tc2)"
    elif isinstance(error, TypeError):
        cause = "libxtables is missing; install package iptables (Debian: libxtables12)"
    elif "directory with extensions" in text:
        cause = "no directory with xtables plugins; install package iptables or set XTABLES_LIBDIR"
    elif "unknown xtables version" in text:
        cause = f"this iptables is newer than python-iptables knows: {text}"
    elif isinstance(error, OSError):
        cause = f"cannot look for libraries (needs /sbin/ldconfig): {text}"
    else:
        cause = f"{type(error).__name__}: {text}"
    return (f"python-iptables cannot be loaded: {cause}",)


def _keep_udata(iptc: ModuleType) -> None:
    """Hold the scratch buffer that libxtables keeps a pointer to.

    `reset` stores the address of a buffer that Python frees at once; hashlimit writes its rate
    there and reads garbage back, which the kernel refuses with EINVAL.
    """
    for cls in (iptc.Match, iptc.Target):

        def reset(self: Any, original: Any = cls.reset) -> None:
            original(self)
            size = getattr(self._module, "udata_size", 0)
            if size:
                self._udata_keep = (ctypes.c_ubyte * size)()
                self._module.udata = ctypes.addressof(self._udata_keep)

        cls.reset = reset


def _walk_options_by_their_real_size(xtables: ModuleType) -> None:
    """Step over struct xt_option_entry, which iptables 1.8.11 made 8 bytes longer.

    The library's major version did not change, so the size is found by looking: with the old size
    the second entry's name pointer would be NULL in the new layout (python-iptables issue #353).
    """
    udp = xtables.xtables(_NFPROTO_IPV4).find_match("udp")
    if not udp:
        raise BackendError(
            "xtables plugin udp is missing", hint="install package iptables or set XTABLES_LIBDIR"
        )
    old = ctypes.sizeof(xtables.xt_option_entry)
    first = ctypes.cast(udp[0].x6_options, ctypes.c_void_p).value or 0
    size = old if ctypes.c_void_p.from_address(first + old).value else old + 8

    def entries(table: Any) -> Iterator[Any]:
        address = ctypes.cast(table, ctypes.c_void_p).value or 0
        while (entry := xtables.xt_option_entry.from_address(address)).name:
            yield entry
            address += size

    def lookup(_self: Any, table: Any, name: bytes) -> Any:
        return next((entry for entry in entries(table) if entry.name == name), None)

    def check_mandatory(_self: Any, name: bytes, flags: int, table: Any) -> None:
        for entry in entries(table):
            if entry.flags & xtables.XTOPT_MAND and not flags & (1 << entry.id):
                raise xtables.XTablesError(f"{name.decode()}: --{entry.name.decode()} is missing")

    xtables.xtables._option_lookup = lookup  # noqa: SLF001 - the defect is in this private method
    xtables.xtables._options_fcheck = check_mandatory  # noqa: SLF001 - same


def _stay_out_of_other_tables(iptc: ModuleType) -> None:
    """Keep target creation from opening all five tables, which loads their modules.

    A target that is no built-in verdict is looked up as a chain in every table that may exist.
    The builder knows its chains, so none has to be asked.
    """
    for cls in (iptc.Table, iptc.Table6):
        cls.existing_table_names.update(dict.fromkeys(cls.ALL, False))
