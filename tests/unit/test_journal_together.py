from collections.abc import Sequence

import anyio
import pytest

from smooth_orchestrator.journal.together import Together

pytestmark = pytest.mark.anyio


class _Printer:
    """Answers when it is let, with what it was asked in capitals."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.begun = anyio.Event()
        self.go = anyio.Event()

    async def ask(self, texts: Sequence[str]) -> list[str]:
        self.asked.append([*texts])
        self.begun.set()
        await self.go.wait()
        if "bad" in texts:
            raise ValueError("no")
        return [text.upper() for text in texts]


async def test_who_comes_meanwhile_is_done_together_in_the_order_of_coming() -> None:
    printer, answers = _Printer(), {}
    together = Together[str, str](anyio.Lock())

    async def do(text: str) -> None:
        answers[text] = await together.do(text, printer.ask)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(do, "first")
        await printer.begun.wait()
        for number in range(1200):
            tasks.start_soon(do, f"text {number}")
        await anyio.wait_all_tasks_blocked()
        printer.go.set()

    assert [len(each) for each in printer.asked] == [1, 500, 500, 200]
    assert [text for each in printer.asked for text in each] == ["first", *(f"text {number}" for number in range(1200))]
    assert answers == {text: text.upper() for each in printer.asked for text in each}


async def test_what_fails_for_one_fails_for_those_that_were_done_with_it_and_for_nobody_else() -> None:
    printer = _Printer()
    together = Together[str, str](anyio.Lock())
    failed: list[str] = []

    async def do(text: str) -> None:
        try:
            await together.do(text, printer.ask)
        except ValueError:
            failed.append(text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(do, "first")
        await printer.begun.wait()
        tasks.start_soon(do, "good")
        tasks.start_soon(do, "bad")
        await anyio.wait_all_tasks_blocked()
        printer.go.set()

    assert sorted(failed) == ["bad", "good"]
    assert await together.do("later", printer.ask) == "LATER"
