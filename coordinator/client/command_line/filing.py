"""Keys and files from a shell: `get`, `put`, `delete`, `add`, and `files …`."""

from __future__ import annotations

import argparse
from typing import Any, Final, get_args

from coordinator.client import Client
from coordinator.client.command_line import output
from coordinator.client.errors import InvalidRequest
from coordinator.client.watches import Snapshot
from coordinator.statemachine.commands import LIST_LIMIT_MAX
from coordinator.statemachine.files import SortBy

_SORTED: Final = get_args(SortBy)


def add_to(commands: Any) -> None:
    get = commands.add_parser("get", help="print a key's value; status 1 where there is none")
    get.add_argument("key")
    get.set_defaults(run=_get_key)
    put = commands.add_parser("put", help="write a key")
    put.add_argument("key")
    put.add_argument("value", help='"-": from standard input')
    put.set_defaults(run=_put_key)
    delete = commands.add_parser("delete", help="delete a key; status 1 where there was none")
    delete.add_argument("key")
    delete.set_defaults(run=_delete_key)
    add = commands.add_parser("add", help="add to a counter, and print the sum")
    add.add_argument("key")
    add.add_argument("amount", nargs="?", type=int, default=1)
    add.set_defaults(run=_add)
    _add_files(commands.add_parser("files", help="files, directories, ranges and their changes"))


def _add_files(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    get = commands.add_parser("get", help="print a file's content")
    get.add_argument("path")
    get.add_argument("--revision", type=output.number(0), default=0, help="as it was at this revision")
    get.set_defaults(run=_get)
    put = commands.add_parser("put", help="write a file that is there; with --create one that is not")
    put.add_argument("path")
    put.add_argument("value", help='"-": from standard input')
    put.add_argument("--generation", type=output.number(0), help="only where its content generation is this")
    put.add_argument("--if-revision", type=output.number(0), metavar="R", help="only where revision R wrote it last")
    put.add_argument("--create", action="store_true", help="create it, and print its path; it must not be there")
    put.add_argument("--parents", action="store_true", help="with --create: make directories that are missing")
    put.add_argument("--sequential", action="store_true", help="with --create: 19 digits that grow behind its name")
    put.set_defaults(run=_put)
    stat = commands.add_parser("stat", help="print what is known of a file or directory")
    stat.add_argument("path")
    stat.add_argument("--revision", type=output.number(0), default=0, help="as it was at this revision")
    stat.set_defaults(run=_stat)
    remove = commands.add_parser("rm", help="delete a file or a directory")
    remove.add_argument("path")
    remove.add_argument("-r", "--recursive", action="store_true", help="with all that is below")
    remove.add_argument("--generation", type=output.number(0), help="only where its content generation is this")
    remove.add_argument("--if-revision", type=output.number(0), metavar="R", help="only where R wrote it last")
    remove.set_defaults(run=_remove)
    make = commands.add_parser("mkdir", help="make a directory that stays when it is empty")
    make.add_argument("path")
    make.add_argument("-p", "--parents", action="store_true", help="also those above it; no error if it is there")
    make.set_defaults(run=_make_directory)
    listing = commands.add_parser("ls", help="list a directory")
    listing.add_argument("path", nargs="?", default="")
    listing.add_argument("--revision", type=output.number(0), default=0, help="as it was at this revision")
    listing.add_argument("-l", "--long", action="store_true", help="with size, revision and kind")
    listing.set_defaults(run=_list)
    _add_ranges(commands)


def _add_ranges(commands: Any) -> None:
    in_range = argparse.ArgumentParser(add_help=False)
    in_range.add_argument("start")
    in_range.add_argument("end", nargs="?", default="", help="up to before this key")
    in_range.add_argument("--prefix", action="store_true", help="all keys that begin with START")
    in_range.add_argument("--json", action="store_true", help="a JSON object a line, values in base64")
    scan = commands.add_parser("range", parents=[in_range], help="print the keys of a range, at one revision")
    scan.add_argument("--revision", type=output.number(0), default=0, help="as it was at this revision; default: now")
    scan.add_argument("--sort-by", choices=_SORTED, default="key", help="in this order; default: of the keys")
    scan.add_argument("--descending", action="store_true", help="the greatest first")
    scan.add_argument("--limit", type=output.number(1), help="so many at the most; default: all")
    scan.set_defaults(run=_scan)
    erase = commands.add_parser("rm-range", help="delete the keys of a range in one revision, and print how many went")
    erase.add_argument("start")
    erase.add_argument("end", nargs="?", default="", help="up to before this key; default: START alone")
    erase.add_argument("--prefix", action="store_true", help="all keys that begin with START")
    erase.set_defaults(run=_remove_range)
    compact = commands.add_parser("compact", help="give up old revisions; takes the right to administer")
    compact.add_argument("revision", type=output.number(0), help="the oldest that is still to be readable")
    compact.set_defaults(run=_compact)
    watch = commands.add_parser("watch", parents=[in_range], help="print each change of a range as it is made")
    watch.add_argument("--since", type=output.number(0), default=0, help="from this revision on; default: from now on")
    watch.add_argument("--follow", action="store_true", help="print what is there first, and again after a gap")
    watch.add_argument("--count", type=output.number(1), help="end after so many changes")
    kinds = watch.add_mutually_exclusive_group()
    kinds.add_argument("--puts", action="store_true", help="only what is written")
    kinds.add_argument("--deletes", action="store_true", help="only what is deleted")
    watch.add_argument("--previous", action="store_true", help="with what was there before")
    watch.set_defaults(run=_watch)


def _get_key(client: Client, options: argparse.Namespace) -> int:
    value = client.get(options.key)
    if value is None:
        return 1
    output.write_value(value)
    return 0


def _put_key(client: Client, options: argparse.Namespace) -> int:
    client.put(options.key, output.value_of(options.value))
    return 0


def _delete_key(client: Client, options: argparse.Namespace) -> int:
    return 0 if client.delete(options.key) else 1


def _add(client: Client, options: argparse.Namespace) -> int:
    print(client.add(options.key, options.amount))
    return 0


def _get(client: Client, options: argparse.Namespace) -> int:
    output.write_value(client.files.read(options.path, revision=options.revision).value)
    return 0


def _put(client: Client, options: argparse.Namespace) -> int:
    if not options.create and (options.parents or options.sequential):
        raise InvalidRequest("--parents and --sequential go with --create")
    if options.create and (options.generation is not None or options.if_revision is not None):
        given = "--generation" if options.generation is not None else "--if-revision"
        raise InvalidRequest(f"{given} is of a file that is there, --create makes one that is not")
    value = output.value_of(options.value)
    if options.create:
        created = client.files.create(options.path, value, sequential=options.sequential, parents=options.parents)
        print(created.path)
    else:
        client.files.write(options.path, value, generation=options.generation, revision=options.if_revision)
    return 0


def _stat(client: Client, options: argparse.Namespace) -> int:
    stat = client.files.stat(options.path, revision=options.revision)
    print(f"path        {stat.path}")
    print(f"kind        {'directory' if stat.directory else 'ephemeral file' if stat.ephemeral else 'file'}")
    print(f"children    {stat.children}")
    print(f"size        {stat.size}")
    print(f"generation  {stat.version}")
    print(f"revision    {stat.revision}")
    print(f"instance    {stat.instance}")
    print(f"lock        {stat.lock_generation}")
    print(f"acl         {stat.acl_generation}")
    print(f"checksum    {stat.checksum:016x}")
    if stat.sessions:
        print(f"sessions    {' '.join(map(str, stat.sessions))}")
    return 0


def _remove(client: Client, options: argparse.Namespace) -> int:
    client.files.delete(
        options.path, recursive=options.recursive, generation=options.generation, revision=options.if_revision
    )
    return 0


def _make_directory(client: Client, options: argparse.Namespace) -> int:
    client.files.make_directory(options.path, parents=options.parents)
    return 0


def _list(client: Client, options: argparse.Namespace) -> int:
    after: str | None = None
    while True:
        page = client.files.list_directory(options.path, revision=options.revision, after=after, limit=1_000)
        for child in page.children:
            name = f"{child.name}/" if child.directory else child.name
            print(f"{child.size:>9} {child.revision:>12}  {name}" if options.long else name)
            after = child.name
        if not page.more:
            return 0


def _scan(client: Client, options: argparse.Namespace) -> int:
    after, revision, left = "", options.revision, options.limit
    while True:
        page = client.files.read_range(
            options.start,
            options.end,
            prefix=options.prefix,
            revision=revision,
            limit=min(left or LIST_LIMIT_MAX, LIST_LIMIT_MAX),
            sort_by=options.sort_by,
            descending=options.descending,
            after=after,
        )
        left = None if left is None else left - len(page.keys)
        if page.more and left != 0 and options.sort_by != "key":
            first = (
                f"only the first {len(page.keys)} of {page.count} keys are told in the order of their {options.sort_by}"
            )
            raise InvalidRequest(f"{first}; narrow the range, or say --limit {len(page.keys)}")
        for view in page.keys:
            output.line(f"{view.key} {output.as_text(view.value)}".rstrip(), output.key(view), as_json=options.json)
        if left == 0 or not page.more:
            return 0
        after, revision = page.keys[-1].key, page.revision


def _remove_range(client: Client, options: argparse.Namespace) -> int:
    print(client.files.delete_range(options.start, options.end, prefix=options.prefix))
    return 0


def _compact(client: Client, options: argparse.Namespace) -> int:
    client.files.compact(options.revision)
    return 0


def _watch(client: Client, options: argparse.Namespace) -> int:
    told = 0
    if options.follow:
        if options.since:
            raise InvalidRequest("--follow begins with what is there now, --since at a revision; expected one of them")
        if options.puts or options.deletes or options.previous:
            raise InvalidRequest("--follow tells all that a range holds; --puts, --deletes, --previous go without it")
        for each in client.files.follow(options.start, options.end, prefix=options.prefix):
            if isinstance(each, Snapshot):
                for view in each.keys:
                    plain = f"{each.revision} is {view.key} {output.as_text(view.value)}".rstrip()
                    output.line(plain, {"revision": each.revision, "is": output.key(view)}, as_json=options.json)
                continue
            output.change(each, as_json=options.json)
            told += 1
            if told == options.count:
                break
        return 0
    watch = client.files.watch(
        options.start,
        options.end,
        prefix=options.prefix,
        since=options.since,
        puts=not options.deletes,
        deletes=not options.puts,
        previous=options.previous,
    )
    for change in watch:
        output.change(change, as_json=options.json, previous=options.previous)
        told += 1
        if told == options.count:
            break
    return 0
