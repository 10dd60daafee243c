"""The thread in which a caller's functions are asked."""

import contextvars
import threading

import pytest
import trio
import trio.testing

from evocell.evaluation.own_functions import HostThread

pytestmark = pytest.mark.trio


async def test_functions_run_in_order_one_at_a_time_and_each_answers_its_own():
    thread, begun, running = HostThread(), [], []
    answers = {}

    def square(number):
        assert not running
        running.append(number)
        begun.append(number)
        running.pop()
        if number == 5:
            raise ValueError("not five")
        return number**2

    async def ask(number):
        try:
            answers[number] = await thread.run(lambda: square(number))
        except ValueError as error:
            answers[number] = str(error)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            await trio.lowlevel.checkpoint()
            nursery.start_soon(ask, number)

    assert sorted(begun) == list(range(30))
    assert answers == {number: number**2 for number in range(30)} | {5: "not five"}


async def test_one_that_is_given_up_is_not_called_and_holds_up_nobody():
    thread, called = HostThread(), []
    held, go_on = threading.Event(), threading.Event()

    def hold():
        held.set()
        go_on.wait(10)
        called.append("hold")

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def give_up():
            with scope:
                await thread.run(lambda: called.append("given up"))

        nursery.start_soon(thread.run, hold)
        await trio.to_thread.run_sync(held.wait)
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(thread.run, lambda: called.append("last"))
        go_on.set()
    assert called == ["hold", "last"]


async def test_a_caller_who_leaves_a_function_running_is_not_waited_for():
    thread, held, go_on = HostThread(), threading.Event(), threading.Event()

    def hold():
        held.set()
        go_on.wait(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, hold)
        await trio.to_thread.run_sync(held.wait)
        nursery.cancel_scope.cancel()
    assert not go_on.is_set()
    go_on.set()
    assert await thread.run(lambda: "next") == "next"


async def test_what_a_function_sees_of_its_context_is_its_callers():
    variable = contextvars.ContextVar("variable", default="nobody's")
    variable.set("mine")
    assert await HostThread().run(variable.get) == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
async def test_what_a_function_raises_is_raised_where_it_was_handed_in(error):
    def fail():
        raise error("so")

    with pytest.raises(error, match="so"):
        await HostThread().run(fail)


async def test_a_function_may_use_the_loop_that_waits_for_it():
    def ask():
        return trio.from_thread.run(trio.sleep, 0), trio.from_thread.run_sync(trio.current_time)

    assert (await HostThread().run(ask))[1] > 0
