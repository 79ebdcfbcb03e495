"""One proof from its network to its last verdict; runs on the stage."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from sipfw.deploy.apply import apply
from sipfw.deploy.generations import Content
from sipfw.errors import BackendError
from sipfw.host.files import Layout
from sipfw.kernel.backend import Options
from sipfw.kernel.snapshot import HostSnapshot
from sipfw.policy.scenario import Actor
from sipfw.prove import scene
from sipfw.prove.attacker import Attacker
from sipfw.prove.decided import Counters
from sipfw.prove.phone import Phone
from sipfw.prove.programme import FIRST_ATTACKER, OFFICE, PHONE, PROVIDER
from sipfw.prove.stage import SCRATCH, on_stage
from sipfw.prove.switch import USERS, SipSwitch
from sipfw.prove.verdict import Proof, Result, Verdict, of_attack, of_good

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sipfw.policy.scenario import Attack, Good, Scenario
    from sipfw.prove.cast import PeerOnStage
    from sipfw.prove.programme import Programme
    from sipfw.prove.stage import Event

_PHONE_PORT = 40000
# Between two rounds of what goes on during attacks: people do not call in a loop.
_PAUSE = 1.0
# What a limit of all strangers together needs to fill up again.
_BREATH = 0.3


def prove(programme: Programme, heard: Callable[[Result], None]) -> Proof:
    """Play everything and return what came of it; `heard` is told each result when it is there.

    Raises BackendError where there can be no stage, or where the rules cannot be loaded.
    """
    started = time.monotonic()
    results = []
    # Whoever hears enough may raise: the stage ends with it.
    with closing(on_stage(lambda tell: _Play(programme, tell).run())) as events:
        for event in events:
            lists = {name: tuple(event[name]) for name in ("sent", "arrived")}
            found = Result(**{**event, **lists, "verdict": Verdict(event["verdict"])})
            results.append(found)
            heard(found)
    return Proof(programme.backend, time.monotonic() - started, tuple(results))


class _Play:
    def __init__(self, programme: Programme, tell: Callable[[Event], None]) -> None:
        self._programme, self._tell = programme, tell
        self._cast = programme.cast
        self._asked: queue.Queue[Callable[[], None] | None] = queue.Queue()

    def run(self) -> None:
        """Build, apply, and do in this thread what the players ask of the switch's host."""
        programme = self._programme
        with ThreadPoolExecutor(1) as world:
            scene.build(self._cast, world)
            self._counters = Counters(programme.ruleset, self._apply())
            trusted = [each.address for each in self._cast.peers]
            self._switch = SipSwitch(
                self._cast.switch,
                ports=programme.ports,
                media=programme.media,
                preset=programme.preset,
                trusted=trusted,
            )
            self._switch.start()
            playing = world.submit(self._play_all)
            playing.add_done_callback(lambda _: self._asked.put(None))
            while (job := self._asked.get()) is not None:
                job()
            playing.result()

    def _apply(self) -> Layout:
        programme, layout = self._programme, Layout(SCRATCH)
        # The size of the table of connections is one for the whole host.
        sysctls = tuple(each for each in programme.ruleset.sysctls if not each.name.endswith("max"))
        content = Content(
            replace(programme.ruleset, sysctls=sysctls),
            programme.backend,
            ipset=programme.ipset,
            source="a proof",
            policy="{}",
        )
        # Nobody is logged in here, whatever the sessions of the host are.
        try:
            apply(content, layout, Options(force=True, host=HostSnapshot()))
        except BackendError as error:
            # Only root of the host may send more at once than net.core.wmem_max.
            if "Message too long" not in error.message:
                raise
            hint = "run it as root, or with --backend iptables"
            raise BackendError("nft takes so many rules from root only", hint=hint) from error
        return layout

    def _at_host(self, job: Callable[[], dict[str, int]]) -> dict[str, int]:
        """Have the main thread do it: only there the switch's namespace is `/proc/net`."""
        box: queue.Queue[dict[str, int] | Exception] = queue.Queue()

        def do() -> None:
            try:
                box.put(job())
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                box.put(error)

        self._asked.put(do)
        answer = box.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _play_all(self) -> None:
        scenarios = self._programme.scenarios
        for good in scenarios.good:
            for version in _versions(good):
                self._hear(self._alone(good, version))
        for number, attack in enumerate(scenarios.attacks, FIRST_ATTACKER):
            for version in _versions(attack):
                self._hear(self._under_attack(attack, number, version))

    def _hear(self, result: Result) -> None:
        self._tell(asdict(result))

    def _alone(self, good: Good, version: int) -> Result:
        blank = Result(
            good.name, good.title, attack=False, version=version, verdict=Verdict.SKIPPED
        )
        if good.actor is Actor.PEER and self._peer(version) is None:
            return replace(blank, why=f"no trusted peer has an IPv{version} address and UDP")
        if other := self._otherwise(good):
            return replace(blank, why=other)
        before = self._at_host(self._counters.read)
        outcomes = self._good(good, version)
        after = self._at_host(self._counters.read)
        failures = [each for each in outcomes if each is not None]
        done = len(outcomes) - len(failures)
        return replace(
            blank,
            verdict=of_good(len(outcomes), done),
            tried=len(outcomes),
            got=done,
            rule=self._counters.decider(before, after, dropped=bool(failures)),
            why=failures[0] if failures else "",
        )

    def _under_attack(self, attack: Attack, number: int, version: int) -> Result:
        profile = str(self._programme.settings["profile"])
        at_most = attack.by_profile.get(profile, attack.at_most)
        blank = Result(
            attack.name,
            attack.title,
            attack=True,
            version=version,
            verdict=Verdict.SKIPPED,
            at_most=at_most,
        )
        if other := self._otherwise(attack):
            return replace(blank, why=other)
        nets = (self._cast.strangers[version][number],)
        sources = [self._cast.host(number, version, 1 + i) for i in range(attack.sources)]
        target = (self._cast.switch[version], self._programme.ports[0])
        before = self._at_host(self._counters.read)
        self._switch.forget()
        attacker = Attacker(attack, sources, target)
        hurt = self._meanwhile(attacker.play)
        time.sleep(_BREATH)
        arrived = self._switch.arrivals(nets)
        refused = self._switch.refused(nets)
        after = self._at_host(self._counters.read)
        got = refused if attack.guesses else len(arrived)
        at_most = round(at_most * attacker.lateness)
        verdict = Verdict.HURT if hurt else of_attack(got, at_most)
        return replace(
            blank,
            verdict=verdict,
            at_most=at_most,
            tried=len(attacker.moments),
            got=got,
            rule=self._counters.decider(before, after, dropped=got < len(attacker.moments) / 2),
            why=hurt,
            sent=_from(attacker.moments, attacker.moments),
            arrived=_from(attacker.moments, arrived),
        )

    def _meanwhile(self, attack: Callable[[], None]) -> str:
        """Attack while good traffic goes on; return the first harm that is done to it."""
        standing = [
            good
            for good in self._programme.scenarios.good
            if good.during_attacks
            and not self._otherwise(good)
            and (good.actor is not Actor.PEER or self._peer(4))
        ]
        over = threading.Event()
        harm: list[str] = []

        def go_on(good: Good) -> None:
            while not over.is_set():
                failures = [each for each in self._good(good, 4) if each is not None]
                if failures:
                    harm.append(f"{good.name} meanwhile: {failures[0]}")
                    return
                over.wait(_PAUSE)

        with ThreadPoolExecutor(max(1, len(standing))) as pool:
            going = [pool.submit(go_on, good) for good in standing]
            try:
                attack()
            finally:
                over.set()
            for each in going:
                each.result()
        return harm[0] if harm else ""

    def _good(self, good: Good, version: int) -> list[str | None]:
        """Do it; return for each transaction None, or why it failed."""
        phones = [self._phone(good, version, number) for number in range(good.phones)]

        def one(phone: Phone) -> list[str | None]:
            outcomes = []
            for deed in good.do * good.times:
                outcomes.append(getattr(phone, deed.replace("-", "_"))())
                if outcomes[-1] is not None:
                    # Whoever has no answer waits for seconds; the next deed would tell no more.
                    break
            return outcomes

        try:
            with ThreadPoolExecutor(len(phones)) as pool:
                return [each for found in pool.map(one, phones) for each in found]
        finally:
            for phone in phones:
                phone.close()

    def _phone(self, good: Good, version: int, number: int) -> Phone:
        target = (self._cast.switch[version], self._programme.ports[0])
        user = USERS[number % len(USERS)]
        peer = self._peer(version)
        if good.actor is Actor.PEER and peer is not None:
            return Phone(
                peer.address,
                peer.port,
                target,
                user,
                media=peer.media,
                ringing=good.ringing,
                watched=self._switch,
            )
        net = {Actor.OFFICE: OFFICE, Actor.PROVIDER: PROVIDER}.get(good.actor, PHONE)
        port = 5060 if good.actor is Actor.PROVIDER else _PHONE_PORT + number
        address = self._cast.host(net, version)
        return Phone(address, port, target, user, ringing=good.ringing, watched=self._switch)

    def _otherwise(self, scenario: Scenario) -> str:
        """Say which value of the policy wants it otherwise; empty where none does."""
        settings = self._programme.settings
        found = [name for name, value in scenario.unless.items() if settings.get(name) == value]
        return f"the policy says {found[0]}: {scenario.unless[found[0]]}" if found else ""

    def _peer(self, version: int) -> PeerOnStage | None:
        return next((each for each in self._cast.peers if each.version == version), None)


def _versions(scenario: Scenario) -> Iterator[int]:
    yield 4
    if scenario.ipv6:
        yield 6


def _from(start: Sequence[float], moments: Sequence[float]) -> tuple[float, ...]:
    first = start[0] if start else 0.0
    return tuple(round(each - first, 3) for each in moments)
