"""`evocell serve`: an engine server for programs in any language, over MessagePack-RPC."""

from __future__ import annotations

import argparse
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from evocell.cli.screen import complain, say_json
from evocell.config import Config
from evocell.errors import ConfigurationError, EvocellError, ProtocolError


def add_serve_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `serve` to the parser."""
    serve = commands.add_parser(
        "serve",
        help="serve programs in any language over MessagePack-RPC",
        description=(
            "Serves the engine over MessagePack-RPC: on standard input and output to the program that "
            "started it, or on a socket to several. The protocol is described in docs/pipe.md."
        ),
    )
    where = serve.add_mutually_exclusive_group()
    where.add_argument("--unix", type=Path, metavar="PATH", help="listen on a Unix socket, for this user")
    where.add_argument("--tcp", metavar="[HOST:]PORT", help="listen on a loopback port; 0 takes a free one")
    where.add_argument("--describe", action="store_true", help="print the protocol as JSON, and end")
    serve.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the token that clients of --tcp must show; made if it is not there",
    )
    serve.add_argument(
        "--framing",
        choices=("stream", "packet4"),
        default="stream",
        help="packet4 puts a length of four bytes before each message, as Erlang's ports do",
    )
    serve.add_argument(
        "--max-clients", type=int, default=16, metavar="N", help="sessions at once on a socket (default: 16)"
    )
    serve.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one per core)")
    serve.set_defaults(run=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    """Serve until the client disconnects, or a signal arrives."""
    if args.describe:
        from evocell.pipe.description import describe

        say_json(describe(), indent=2)
        return 0
    if args.tcp is not None and args.token_file is None:
        raise ConfigurationError("--tcp needs --token-file: every user of this machine can reach a port")
    if args.max_clients < 1:
        raise ConfigurationError(f"--max-clients must be 1 or more, not {args.max_clients}", "max_clients")
    overrides = {} if args.workers is None else {"workers": args.workers}
    config = Config.load(**overrides)
    import trio

    from evocell.api.portal import bare

    try:
        trio.run(partial(_serve, config, args))
    except BaseExceptionGroup as group:
        raise bare(group) from None
    return 0


async def _serve(config: Config, args: argparse.Namespace) -> None:
    import trio

    from evocell.pipe import transports
    from evocell.pipe.server import is_breach, open_server

    ended: EvocellError | None = None
    on_socket = args.unix is not None or args.tcp is not None
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(_end_on_signal, nursery.cancel_scope, on_socket)
        if not on_socket:
            nursery.start_soon(transports.watch_parent, nursery.cancel_scope.cancel)
            streams = await stack.enter_async_context(transports.stdio_streams())
            opening = open_server(config, max_clients=1, may_detach=False)
            server = await stack.enter_async_context(opening)
            ended = await server.serve(*streams, framing=args.framing)
        else:
            token = None if args.tcp is None else transports.read_token(args.token_file)
            listening = (
                transports.listen_unix(args.unix)
                if args.unix is not None
                else transports.listen_tcp(args.tcp)
            )
            listeners = await stack.enter_async_context(listening)
            server = await stack.enter_async_context(open_server(config, max_clients=args.max_clients))
            _announce(args, transports.shown_address(listeners))
            await transports.serve_clients(server, listeners, framing=args.framing, token=token)
        nursery.cancel_scope.cancel()
    if ended is not None and is_breach(ended):
        raise ProtocolError(f"the connection was closed: {ended.message}") from ended


def _announce(args: argparse.Namespace, address: str) -> None:
    """Print the address for clients: one line of JSON for scripts, one sentence for people."""
    token = {} if args.tcp is None else {"token_file": str(args.token_file)}
    place = {"unix" if args.tcp is None else "tcp": address, **token}
    say_json({"listening": place, "framing": args.framing})
    complain(f"listening on {address}; Ctrl-C ends the server and every sandbox")


async def _end_on_signal(scope: object, on_socket: bool) -> None:  # noqa: FBT001 - passed to start_soon
    """End the server on a signal; on standard input, Ctrl-C is left to the parent program."""
    import trio

    assert isinstance(scope, trio.CancelScope)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if number == signal.SIGTERM or on_socket:
                scope.cancel()
                return
