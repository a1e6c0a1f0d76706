"""Registries as files: good ones become values, bad ones tell every problem with its file and line."""

import os
import sys
from pathlib import Path

import pytest

from mcpd.config.load import find_registry, load
from mcpd.config.registry import RestartPolicy, Script, SecretRef
from mcpd.errors import ConfigError
from support.registries import assert_found, write

SERVER = '[servers.time]\ncommand = ["sh"]\n'


@pytest.fixture
def environ(tmp_path):
    return {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}


def problems_of(path, environ):
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return caught.value.problems


def test_empty_registry_is_all_defaults(tmp_path, environ):
    registry = load(write(tmp_path, ""), environ)

    assert registry.path == tmp_path / "mcpd.toml"
    assert registry.daemon.state_dir == tmp_path / "home/.local/state/mcpd"
    assert registry.daemon.secrets_dir == tmp_path / "secrets"
    assert registry.daemon.max_concurrent_starts >= 8
    assert (registry.frontdoor.host, registry.frontdoor.port, registry.frontdoor.auth) == ("127.0.0.1", 6270, "token")
    assert registry.frontdoor.max_body == 4 * 2**20
    assert registry.servers == {}
    assert registry.warnings == ()


def test_every_key_of_a_server_becomes_a_value(tmp_path, environ):
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets" / "github").touch(mode=0o600)
    (tmp_path / "secrets" / "github").write_text("value")
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "x.py").touch()
    path = write(
        tmp_path,
        """
        [servers.other]
        command = ["sh", "-c", "true"]
        [servers.x]
        script = "servers/x.py:app.mcp"
        python = "python3"
        args = ["--fast"]
        cwd = "servers"
        env = { TZ = "UTC", KEY = { secret = "github" } }
        enabled = true
        activation = "eager"
        idle_timeout = "20m"
        sharing = "shared"
        instances = 1
        era = "handshake"
        roots = ["servers", "file:///"]
        start_timeout = "3m"
        call_timeout = 90
        restart = "on-abnormal"
        restart_delay = "1s"
        restart_max_delay = "2m"
        restart_steps = 3
        stable_after = "1m"
        start_limit_burst = 4
        start_limit_interval = "5m"
        start_limit_action = "fail"
        after = ["other"]
        drain_timeout = "1s"
        stop_timeout = 0
        liveness = { initial_delay = "1s", period = "2s", timeout = "1s", failure_threshold = 2, success_threshold = 1 }
        readiness.period = "7s"
        [servers.x.tools]
        allow = ["a", "b"]
        deny = ["c"]
        rename = { a = "alpha" }
        """,
    )

    registry = load(path, environ)

    assert tuple(registry.servers) == ("other", "x")
    spec = registry.servers["x"]
    assert spec.name == "x"
    assert spec.script == Script(file=tmp_path / "servers/x.py", object="app.mcp")
    assert spec.python.is_absolute()
    assert spec.args == ("--fast",)
    assert spec.cwd == tmp_path / "servers"
    assert spec.env == {"TZ": "UTC", "KEY": SecretRef(secret="github")}
    assert spec.roots == ((tmp_path / "servers").as_uri(), "file:///")
    assert (spec.idle_timeout, spec.start_timeout, spec.call_timeout) == (1200, 180, 90)
    assert spec.restart is RestartPolicy.ON_ABNORMAL
    assert (spec.restart_delay, spec.restart_max_delay, spec.restart_steps, spec.stable_after) == (1, 120, 3, 60)
    assert (spec.start_limit_burst, spec.start_limit_interval, spec.start_limit_action) == (4, 300, "fail")
    assert (spec.after, spec.drain_timeout, spec.stop_timeout) == (("other",), 1, 0)
    assert (spec.liveness.initial_delay, spec.liveness.period, spec.liveness.failure_threshold) == (1, 2, 2)
    assert (spec.readiness.period, spec.readiness.timeout) == (7, 5)
    assert (spec.tools.allow, spec.tools.deny, spec.tools.rename) == (("a", "b"), ("c",), {"a": "alpha"})
    assert registry.warnings == ()


def test_server_has_the_documented_defaults(tmp_path, environ):
    spec = load(write(tmp_path, SERVER), environ).servers["time"]

    assert spec.command == (spec.command[0],)
    assert Path(spec.command[0]).is_absolute()
    assert spec.python == Path(sys.executable)
    assert spec.cwd == tmp_path
    assert spec.restart is RestartPolicy.ON_FAILURE
    assert (spec.restart_delay, spec.restart_max_delay, spec.restart_steps, spec.stable_after) == (0.5, 60, 7, 30)
    assert (spec.start_limit_burst, spec.start_limit_interval, spec.start_limit_action) == (5, 600, "backoff")
    assert (spec.start_timeout, spec.call_timeout, spec.drain_timeout, spec.stop_timeout) == (30, 300, 10, 5)
    assert (spec.enabled, spec.activation, spec.sharing, spec.instances, spec.era) == (
        True,
        "eager",
        "shared",
        1,
        "auto",
    )


BAD = {
    "settings": """
        [daemon]
        log_level = "loud"           #! daemon.log_level: 'loud' is not one of "debug"
        log_format = "jsn"           #! daemon.log_format: did you mean 'json'?
        max_concurrent_starts = -1   #! daemon.max_concurrent_starts: expected at least 0, found an integer (-1)
        watch = "yes"                #! daemon.watch: expected a boolean, found a string ('yes'); write true or false
        state_dir = 5                #! daemon.state_dir: expected a path, as a string
        port = 1                     #! daemon.port: it belongs in [frontdoor]
        [frontdoor]
        port = 70000                 #! frontdoor.port: expected at most 65535
        auth = true                  #! frontdoor.auth: use "token", "none" or "jwt"
        allowed_origins = "https://a.example"    #! frontdoor.allowed_origins: write ["https://a.example"]
        allowed_hosts = ["a", "https://b/"]      #! frontdoor.allowed_hosts[1]: is not a host
        separator = "_"              #! frontdoor.separator: '_' is not one of "__", ".", "/" or "-"
        max_body = "4MB"             #! frontdoor.max_body: unknown unit 'MB'
        call_timeout = "2h"
        max_call_time = "1h"         #! frontdoor.max_call_time: is shorter than call_timeout
        input_timeout = 0            #! frontdoor.input_timeout: expected more than 0
        colour = "blue"              #! frontdoor.colour: the keys here are allowed_hosts, allowed_origins, auth
        """,
    "origins": """
        frontdoor.allowed_origins = ["*", "https://a.example/", "https://a.example:8443"]
            #! frontdoor.allowed_origins[0]: not an origin
            #! frontdoor.allowed_origins[1]: no path
        """,
    "types": """
        [servers.a]
        command = "npx -y foo"       #! servers.a.command: write ["npx", "-y", "foo"]
        args = [1]                   #! servers.a.args[0]: expected a string, found an integer (1); write "1"
        cwd = true                   #! servers.a.cwd: expected a path, as a string, found a boolean (true)
        env = { A = 1, B = [], "C=D" = "x", E = { secrt = "x" }, F = { secret = "../x" } }
            #! servers.a.env.A: write it in quotes
            #! servers.a.env.B: write a string
            #! servers.a.env."C=D": cannot be the name
            #! servers.a.env.E: { secret = "NAME" }
            #! servers.a.env.F: secret name '../x'
        enabled = 1                  #! servers.a.enabled: expected a boolean, found an integer (1)
        instances = true             #! servers.a.instances: expected an integer, found a boolean (true)
        era = "old"                  #! servers.a.era: 'old' is not one of
        start_timeout = "soon"       #! servers.a.start_timeout: 'soon' is not a duration
        call_timeout = 2024-01-01    #! servers.a.call_timeout: expected a duration
        restart = "alwys"            #! servers.a.restart: did you mean 'always'?
        restart_delay = 0            #! servers.a.restart_delay: expected at least 0.001
        start_limit_burst = 2.0      #! servers.a.start_limit_burst: expected an integer, found a float (2.0)
        liveness = 5                 #! servers.a.liveness: expected a table, found an integer (5)
        readiness = { perod = "1s", timeout = "-1s" }
            #! servers.a.readiness.perod: did you mean 'period'?
            #! servers.a.readiness.timeout: is not a duration
        [servers.a.tools]
        allow = "add"                #! servers.a.tools.allow: write ["add"]
        [servers.a.tools.rename]
        x = ""                       #! servers.a.tools.rename.x: at least 1
        [servers.b]
        script = ["x.py"]            #! servers.b.script: write script = "FILE" or "FILE:OBJECT"
        [servers.c]
        script = ""                  #! servers.c.script: the name of the script is empty
        """,
    "names": """
        [servers.Time]               #! servers.Time: 'a'..'z'
        """.replace("'a'..'z'", "a-z, 0-9 and '-'")
    + """
        command = ["sh"]
        [servers."a b"]              #! servers."a b": cannot be used
        command = ["sh"]
        name = "x"                   #! servers."a b".name: in the table's header
        [views.All]                  #! views.All: cannot be used
        servers = "*"
        """,
    "top": """
        version = 1                  #! version: unknown key 'version'
        servers.x = 5                #! servers.x: expected a table
        views = 3                    #! views: expected a table
        [server.x]                   #! server: did you mean 'servers'?
        command = ["sh"]
        """,
    "sources": """
        [servers.none]               #! servers.none: nothing says what to run
        [servers.two]
        script = "mcpd.toml"
        command = ["sh"]             #! servers.two.command: script and command are both set
        [servers.python]
        command = ["sh"]
        python = "python3"           #! servers.python.python: only a script has an interpreter
        [servers.empty]
        command = []                 #! servers.empty.command: the command is empty
        """,
    "missing": """
        [servers.a]
        command = ["no-such-program-here"]     #! servers.a.command: is not on mcpd's PATH
        cwd = "nowhere"                        #! servers.a.cwd: does not exist
        [servers.b]
        command = ["./no-such-program"]        #! servers.b.command: does not exist
        [servers.c]
        command = ["/"]                        #! servers.c.command: is a directory
        cwd = "mcpd.toml"                      #! servers.c.cwd: is not a directory
        [servers.d]
        command = ["./mcpd.toml"]              #! servers.d.command: chmod +x
        [servers.e]
        command = ["npx foo"]                  #! servers.e.command: command = ["npx", "foo"]
        [servers.f]
        script = "nothing.py"                  #! servers.f.script: does not exist
        python = "/no/python"                  #! servers.f.python: does not exist
        [servers.g]
        script = "."                           #! servers.g.script: is a directory
        [servers.h]
        command = ["sh"]                       #! servers.h.command: is not on its env.PATH
        env.PATH = "/nowhere"
        [servers.i]
        command = ["sh"]
        env.PATH = { secret = "path" }         #! servers.i.env.PATH: PATH cannot be a secret
        """,
    "secrets": """
        [daemon]
        secret_command = ["no-such-program-here", "show"]    #! daemon.secret_command: it is run without a shell
        secret_keyring = "mcpd"      #! daemon.secret_keyring: keep one of them
        [servers.a]
        command = ["sh"]
        env.A = { secret_file = "../x" }         #! servers.a.env.A: secret name '../x'
        env.B = { secret_file = 1 }              #! servers.a.env.B: { secret_file = "NAME" }
        env.C = { secret = "a", secret_file = "a" }    #! servers.a.env.C: { secret = "NAME" }
        [servers.b]
        command = ["sh"]
        env.PATH = { secret_file = "path" }      #! servers.b.env.PATH: PATH cannot be a secret
        """,
    "after": """
        [servers.a]
        command = ["sh"]
        after = ["b"]                #! servers.a.after: a after b after c after a
        [servers.b]
        command = ["sh"]
        after = ["c"]
        [servers.c]
        command = ["sh"]
        after = ["a", "serverz"]     #! servers.c.after[1]: there is no server 'serverz'
        [servers.d]
        command = ["sh"]
        after = ["d"]                #! servers.d.after[0]: cannot start after itself
        """,
    "views": """
        [views.a]
        servers = ["tme", "time", "time"]
            #! views.a.servers[0]: did you mean 'time'?
            #! views.a.servers[2]: stands twice
        [views.b]
        servers = "time"             #! views.b.servers: write ["time"]
        [views.c]                    #! views.c: servers is missing
        [servers.time]
        command = ["sh"]
        """,
    "rules": """
        [servers.a]
        command = ["sh"]
        restart_delay = "5s"
        restart_max_delay = "1s"     #! servers.a.restart_max_delay: is shorter than restart_delay
        roots = ["https://x"]        #! servers.a.roots[0]: is not a file
        tools = { allow = ["x", "y"], deny = ["y"], rename = { p = "q" } }
            #! servers.a.tools.deny[0]: is allowed and denied
        [servers.own]
        command = ["sh"]
        sharing = "session"
        instances = 3                #! servers.own.instances: is for servers that clients share
        [servers.b]
        command = ["sh"]
        tools.rename = { a = "x", b = "x" }    #! servers.b.tools: two tools are renamed to 'x'
        """,
    "not-yet": """
        [frontdoor]
        host = "0.0.0.0"             #! frontdoor.host: reachable from other machines
        [frontdoor.jwt]
        algorithms = ["HS256"]       #! frontdoor.jwt.algorithms[0]: is not one of
        colour = "blue"              #! frontdoor.jwt.colour: the keys here are
        [views.a]
        servers = "*"
        compact = true
        """,
    "packages": """
        [servers.a]
        package = "npm:@x/y@1.0.0"
        bin = "y"
        [servers.b]
        command = ["sh"]
        bin = "y"                    #! servers.b.bin: means nothing without package; remove the key
        install_scripts = true       #! servers.b.install_scripts: means nothing without package
        """,
    "sandbox": """
        [sandbox]
        run_as = "root"              #! sandbox.run_as: servers never run as root
        [profiles.mine]
        extends = "strct"            #! profiles.mine.extends: is not one of
        allow = ["example.org"]      #! profiles.mine.allow[0]: 'example.org' is not a host and a port
        read = ["/proc/1"]           #! profiles.mine.read[0]: it is in /proc
        [profiles.strict]            #! profiles.strict: the profile 'strict' is mcpd's own
        [servers.b]
        command = ["sh"]
        sandbox.profile = "strct"    #! servers.b.sandbox.profile: did you mean 'strict'?
        [servers.c]
        command = ["sh"]
        sandbox.profile = "strict"
        sandbox.read = ["/etc/ssl"]  #! servers.c.sandbox.read: write profile = "filesystem"
        limits.tmp_size = 1          #! servers.c.limits.tmp_size: it belongs in [servers.NAME.sandbox]
        [servers.d]
        command = ["sh"]
        sandbox.profile = "filesystem"
        sandbox.read = ["/", "/sys/kernel", "nowhere"]
            #! servers.d.sandbox.read[0]: cannot be granted
            #! servers.d.sandbox.read[1]: it is in /sys
            #! servers.d.sandbox.read[2]: No such file or directory
        sandbox.write = ["/usr/local"]     #! servers.d.sandbox.write[0]: it is in the system
        [servers.e]
        command = ["sh"]
        sandbox.profile = "network"  #! servers.e.sandbox.profile: names nothing in it
        [servers.f]
        command = ["sh"]
        sandbox.profile = "unsandboxed"
        sandbox.write = ["/srv"]     #! servers.f.sandbox.write: means nothing
        """,
    "defaults": """
        [defaults]
        restart = "never"            #! defaults.restart: is not one of
        env = { A = 1 }              #! defaults.env.A: found an integer
        cwd = "nowhere"              #! defaults.cwd: does not exist
        [servers.a]
        command = ["sh"]
        [servers.b]
        command = ["sh"]
        env = { B = 2 }              #! servers.b.env.B: found an integer
        """,
}


@pytest.mark.parametrize("title", BAD)
def test_all_problems_of_a_file_are_told_at_once(title, tmp_path, environ):
    path = write(tmp_path, BAD[title])

    assert_found(problems_of(path, environ), [path])


def test_problem_is_one_line_with_file_line_key_and_remedy(tmp_path, environ):
    path = write(tmp_path, "[frontdoor]\nprot = 1\n")

    with pytest.raises(ConfigError) as caught:
        load(path, environ)

    assert str(caught.value) == f"{path}:2: frontdoor.prot: unknown key 'prot'; did you mean 'port'?"


def test_warnings_do_not_stop_a_registry(tmp_path, environ):
    path = write(
        tmp_path,
        """
        [frontdoor]
        separator = "-"              #? frontdoor.separator: of 'a' and 'a-b'
        max_call_time = "10m"
        [views.none]
        servers = []                 #? views.none.servers: shows no server
        [servers.a]
        command = ["sh"]
        start_limit_burst = 60       #? servers.a.start_limit_burst: is never hit
        call_timeout = "20m"         #? servers.a.call_timeout: frontdoor.max_call_time
        roots = ["nowhere"]          #? servers.a.roots[0]: does not exist
        tools = { deny = ["x"], rename = { x = "y" } }    #? servers.a.tools.rename.x: renamed but not shown
        env.KEY = { secret = "k" }   #? servers.a.env.KEY: the secrets directory
        env.FILE = { secret_file = "k" }    #? servers.a.env.FILE: the secrets directory
        [servers.a-b]
        enabled = false
        command = ["no-such-program-here"]    #? servers.a-b.command: is not on mcpd's PATH
        """,
    )

    assert_found(load(path, environ).warnings, [path], "?")


def test_missing_programs_can_be_tolerated_so_that_the_other_servers_start(tmp_path, environ):
    path = write(tmp_path, SERVER + '[servers.gone]\ncommand = ["no-such-program-here"]\n')

    registry = load(path, environ, tolerate_missing=True)

    assert tuple(registry.servers) == ("time", "gone")
    assert registry.servers["gone"].command == ("no-such-program-here",)
    assert [(warning.line, warning.key) for warning in registry.warnings] == [(4, "servers.gone.command")]


def test_files_of_servers_d_are_merged_in_name_order(tmp_path, environ):
    path = write(tmp_path, SERVER + '[defaults]\nenv.A = "1"\n')
    write(tmp_path, '[servers.b]\nscript = "b.py"\n[views.v]\nservers = "*"\n', "servers.d/20-b.toml")
    write(tmp_path, '[servers.a]\ncommand = ["./run"]\ncwd = "."\n', "servers.d/10-a.toml")
    write(tmp_path, "", "servers.d/b.py")
    write(tmp_path, "#!/bin/sh\n", "servers.d/run").chmod(0o755)
    write(tmp_path, "not toml", "servers.d/.hidden.toml")
    write(tmp_path, "not toml", "servers.d/old.toml.bak")

    registry = load(path, environ)

    assert tuple(registry.servers) == ("time", "a", "b")
    assert registry.views["v"].servers == ("time", "a", "b")
    assert registry.servers["a"].command == (str(tmp_path / "servers.d/run"),)
    assert registry.servers["a"].cwd == tmp_path / "servers.d"
    assert registry.servers["b"].script == Script(file=tmp_path / "servers.d/b.py")
    assert registry.servers["b"].env == {"A": "1"}


def test_problems_of_all_files_are_told_at_once(tmp_path, environ):
    main = write(tmp_path, SERVER + '[frontdoor]\nport = "x"    #! frontdoor.port: expected an integer\n')
    one = write(
        tmp_path,
        f"""
        [servers.time]               #! servers.time: already defined at {main}:1
        command = ["sh"]
        [daemon]                     #! daemon: move it to {main}
        watch = true
        """,
        "servers.d/1.toml",
    )
    two = write(tmp_path, "\n[servers.x]\nenv = { A = \n", "servers.d/2.toml")
    three = write(tmp_path, "[servers.y]   #! servers.y: nothing says what to run\n", "servers.d/3.toml")
    problems = problems_of(main, environ)

    broken = [problem for problem in problems if problem.file == two]
    assert [problem.line for problem in broken] == [3]
    assert_found([problem for problem in problems if problem.file != two], [main, one, three])


def test_names_are_not_missed_while_a_file_cannot_be_read(tmp_path, environ):
    path = write(tmp_path, '[views.v]\nservers = ["x"]\n[servers.a]\ncommand = ["sh"]\nafter = ["x"]\n')
    broken = write(tmp_path, "[servers.x\n", "servers.d/x.toml")

    assert [problem.file for problem in problems_of(path, environ)] == [broken]


def test_duplicates_of_views_name_both_places(tmp_path, environ):
    path = write(tmp_path, SERVER + "[views.v]\nservers = '*'\n")
    write(tmp_path, "\n[views.v]\nservers = '*'\n", "servers.d/a.toml")

    (problem,) = problems_of(path, environ)

    assert (problem.file, problem.line) == (tmp_path / "servers.d/a.toml", 2)
    assert f"{path}:3" in problem.message


def test_call_timeout_of_the_front_door_is_the_servers_default(tmp_path, environ):
    text = '[frontdoor]\ncall_timeout = "1m"\n' + SERVER + '[servers.own]\ncommand = ["sh"]\ncall_timeout = "2m"\n'

    servers = load(write(tmp_path, text), environ).servers

    assert (servers["time"].call_timeout, servers["own"].call_timeout) == (60, 120)


def test_environment_overrides_settings(tmp_path, environ):
    path = write(tmp_path, '[frontdoor]\nport = 1\n[daemon]\nlog_level = "debug"\n')
    environ |= {
        "MCPD_FRONTDOOR__PORT": "8080",
        "MCPD_FRONTDOOR__ALLOWED_ORIGINS": '["https://a.example"]',
        "MCPD_DAEMON__STATE_DIR": "~/state",
        "MCPD_CONFIG": "/elsewhere",
    }

    registry = load(path, environ)

    assert registry.frontdoor.port == 8080
    assert registry.frontdoor.allowed_origins == ("https://a.example",)
    assert registry.daemon.state_dir == tmp_path / "home/state"
    assert registry.daemon.log_level == "debug"


def test_problems_of_the_environment_name_the_variable(tmp_path, environ):
    environ |= {"MCPD_FRONTDOOR__PROT": "1", "MCPD_DAEMON__LOG_LEVEL": "loud", "MCPD_DAEMON__WATCH": "perhaps"}

    problems = problems_of(write(tmp_path, ""), environ)

    assert {problem.key for problem in problems} == set(environ) - {"HOME", "PATH"}
    assert {(problem.file, problem.line) for problem in problems} == {(None, None)}


def test_logs_are_kept_with_the_state_unless_something_else_is_said(tmp_path, environ):
    path = write(tmp_path, '[daemon]\nstate_dir = "state"\n')

    assert load(path, environ).daemon.logs_dir == tmp_path / "state" / "logs"
    assert load(path, environ | {"LOGS_DIRECTORY": "/var/log/mcpd"}).daemon.logs_dir == Path("/var/log/mcpd")
    write(tmp_path, '[daemon]\nlogs_dir = "l"\n')
    assert load(path, environ | {"LOGS_DIRECTORY": "/var/log/mcpd"}).daemon.logs_dir == tmp_path / "l"


def test_what_was_missing_before_is_tolerated_and_nothing_else(tmp_path, environ):
    path = write(tmp_path, '[servers.a]\ncommand = ["no-such-a"]\n')
    known = load(path, environ, tolerate_missing=True).missing
    assert [problem.key for problem in known] == ["servers.a.command"]

    again = load(path.rename(path), environ, known_missing=known)
    assert (again.missing, again.warnings) == (known, known)
    write(tmp_path, '# moved\n\n[servers.a]\ncommand = ["no-such-a"]\n[servers.b]\ncommand = ["sh"]\n')
    (moved,) = load(path, environ, known_missing=known).missing
    assert moved.line == 4
    for other in ('[servers.a]\ncommand = ["no-such-b"]\n', '[servers.a]\ncommand = ["no-such-a"]\ncwd = "gone"\n'):
        write(tmp_path, other)
        with pytest.raises(ConfigError, match=r"servers\.a\.c"):
            load(path, environ, known_missing=known)


def test_texts_can_stand_for_files(tmp_path, environ):
    path = write(tmp_path, '[servers.a]\ncommand = ["sh"]\n')
    other = tmp_path / "servers.d" / "b.toml"

    assert set(load(path, environ, instead={other: '[servers.b]\ncommand = ["sh"]\ncwd = "/"\n'}).servers) == {"a", "b"}
    assert set(load(path, environ, instead={path: ""}).servers) == set()
    with pytest.raises(ConfigError, match=r"servers\.d/b\.toml:1: not valid TOML"):
        load(path, environ, instead={other: "["})


def test_runtime_dir_has_to_be_short_enough_for_a_socket(tmp_path, environ):
    path = write(tmp_path, f'[daemon]\nruntime_dir = "/{"x" * 100}"\n')

    (problem,) = problems_of(path, environ)

    assert (problem.line, problem.key) == (2, "daemon.runtime_dir")


def test_runtime_dir_of_the_environment_that_is_too_long_is_told_at_the_file(tmp_path, environ):
    environ |= {"XDG_RUNTIME_DIR": "/" + "x" * 100, "MCPD_FRONTDOOR__PORT": "1"}

    (problem,) = problems_of(write(tmp_path, ""), environ)

    assert (problem.file, problem.key) == (tmp_path / "mcpd.toml", "daemon.runtime_dir")


def test_registry_that_cannot_be_read_is_one_problem(tmp_path, environ):
    (problem,) = problems_of(tmp_path / "absent.toml", environ)

    assert "No such file" in problem.message


def test_usual_registries_are_looked_for_in_order(tmp_path):
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    named, users = write(tmp_path, "", "named.toml"), write(tmp_path, "", "xdg/mcpd/mcpd.toml")

    assert find_registry(named, environ | {"MCPD_CONFIG": "/nowhere"}) == named
    assert find_registry(None, environ | {"MCPD_CONFIG": str(named)}) == named
    assert find_registry(None, environ) == users


@pytest.mark.parametrize("target", ["absent.toml", "."])
def test_registry_that_was_asked_for_has_to_be_there(tmp_path, target):
    with pytest.raises(ConfigError) as by_option:
        find_registry(tmp_path / target, {})
    with pytest.raises(ConfigError) as by_variable:
        find_registry(None, {"MCPD_CONFIG": str(tmp_path / target)})

    assert by_option.value.problems[0].key == "--config"
    assert by_variable.value.problems[0].key == "MCPD_CONFIG"


def test_no_registry_anywhere_tells_where_was_looked(tmp_path, monkeypatch):
    monkeypatch.setattr("mcpd.config.load.SYSTEM_REGISTRY", tmp_path / "etc/mcpd.toml")

    with pytest.raises(ConfigError) as caught:
        find_registry(None, {"HOME": str(tmp_path)})

    assert str(tmp_path / ".config/mcpd/mcpd.toml") in str(caught.value)
    assert str(tmp_path / "etc/mcpd.toml") in str(caught.value)


def test_server_with_a_bad_name_and_a_bad_order_is_told_once(tmp_path):
    path = tmp_path / "mcpd.toml"
    path.write_text('[servers.Bad]\ncommand = ["/bin/true"]\nafter = [""]\n')

    with pytest.raises(ConfigError) as caught:
        load(path, {})

    assert [problem.key for problem in caught.value.problems] == ["servers.Bad"]
