"""The command that writes the rules of the broker's users."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import click

from pipemill.address import address_of, read_password
from pipemill.cli.common import Invocation, broker_options, json_option, pass_invocation
from pipemill.cli.output import to_json
from pipemill.protocol.names import PREFIX


@click.command()
@click.argument("role", type=click.Choice(["producer", "worker", "operator"]))
@click.argument("queues", nargs=-1)
@click.option("--user", metavar="NAME", help="The user's name; else pipemill-ROLE.")
@click.option(
    "--password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the hash of the password in this file; without it, the user's passwords stay as they are.",
)
@click.option("--no-cancel", is_flag=True, help="A producer that can't cancel, and so can't write results.")
@click.option("--celery", is_flag=True, help="A producer that is a plain Celery client, too.")
@click.option("--letters", is_flag=True, help="A producer that reads, replays and drops dead letters, too.")
@click.option("--acl-file", is_flag=True, help="Write a line for the server's aclfile instead of a command.")
@broker_options
@json_option
@pass_invocation
def acl(  # noqa: PLR0913  # each is an option of the command
    invocation: Invocation,
    role: str,
    queues: tuple[str, ...],
    *,
    user: str | None,
    password_file: Path | None,
    no_cancel: bool,
    celery: bool,
    letters: bool,
    acl_file: bool,
) -> None:
    """Write the rules that a user of the broker needs, and no more.

    QUEUES are those that the user works with; all of the catalogue if none is named. The rules are for Redis 7.0 or
    newer, and Valkey; nothing is sent to the broker: pipe them into redis-cli. Write them again after an upgrade.
    """
    from pipemill.catalogue import check_queue_name, load_catalogue, resolve_broker  # noqa: PLC0415  # pydantic is slow
    from pipemill.store.acl import Role, rules  # noqa: PLC0415  # it brings redis in the end

    for queue in queues:
        try:
            check_queue_name(queue)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="QUEUES") from error
    name = user or f"{PREFIX.removesuffix(':')}-{role}"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise click.BadParameter("use letters, digits, dots, dashes and underscores", param_hint="--user")
    found = rules(
        Role(role),
        queues or sorted(load_catalogue(invocation.catalogue).queues),
        database=address_of(resolve_broker(invocation.broker, invocation.catalogue)).database,
        cancels=not no_cancel,
        celery=celery,
        letters=letters,
    )
    if password_file is not None:
        digest = hashlib.sha256(read_password(password_file).encode()).hexdigest()
        found = [found[0], "resetpass", f"#{digest}", *found[1:]]
    if invocation.json:
        click.echo(to_json({"user": name, "rules": found}))
    else:
        click.echo(f"{'user' if acl_file else 'ACL SETUSER'} {name} {' '.join(found)}")
