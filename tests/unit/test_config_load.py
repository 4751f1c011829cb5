"""The configuration file: what it means, and what its mistakes read like."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sshgate.config import values
from sshgate.config.load import load, parse
from sshgate.config.model import Address, Config, Group, Home, Profile, Proxy, Share, Tls, Traces, Web
from sshgate.config.rules import ignored_settings
from sshgate.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("gate.yaml")


def read(text: str, path: Path = HERE) -> Config:
    return parse(textwrap.dedent(text), path)


def mistakes(text: str, path: Path = HERE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, path)
    return caught.value.mistakes


# --- what it means ---


@pytest.mark.parametrize("text", ["", "# nothing\n", "version: 1", "ssh:\nprofiles:\nlimits:\n"])
def test_a_file_that_says_nothing_means_the_defaults(text: str) -> None:
    assert read(text) == Config()


def test_values_carry_their_units() -> None:
    config = read("""
        ssh: {login_grace: 1h30m, keepalive: 250ms, rekey_bytes: 512Mi, drain: 0}
        profiles:
          default: {limits: {idle: 0, max_lifetime: 1d, start: 1.5m}}
    """)
    assert (config.ssh.login_grace, config.ssh.keepalive, config.ssh.drain) == (5400.0, 0.25, 0.0)
    assert config.ssh.rekey_bytes == 512 << 20
    assert config.profiles["default"].limits.max_lifetime == 86_400.0
    assert config.profiles["default"].limits.start == 90.0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:2222", Address("0.0.0.0", 2222)),
        ("localhost:0", Address("localhost", 0)),
        ('"[::]:22"', Address("::", 22)),
        ('"[0:0::0001]:22"', Address("::1", 22)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert read(f"ssh: {{listen: {text}}}").ssh.listen == address


def test_paths_begin_at_the_file(tmp_path: Path) -> None:
    config = read("access: {authorized_keys: people}", tmp_path / "gate.yaml")
    assert config.access.authorized_keys == tmp_path / "people"
    assert config.ssh.host_keys == tmp_path / "keys/host"


def test_an_heir_has_its_parents_settings_and_its_own() -> None:
    config = read("""
        profiles:
          gpu:
            extends: default
            node_selector: {accelerator: nvidia-t4}
            resources: {limits: {nvidia.com/gpu: "1"}}
          default:
            description: The usual one.
            image: mine:1
            warm: 2
            resources: {limits: {cpu: 4, memory: null}}
            allow: [a, b]
          huge: {extends: gpu, allow: [c], limits: {start: 5m}}
    """)
    assert list(config.profiles) == ["gpu", "default", "huge"]
    huge = config.profiles["huge"]
    assert (huge.name, huge.image, huge.warm, huge.allow) == ("huge", "mine:1", 2, ("c",))
    assert huge.resources.limits == {"cpu": "4", "ephemeral-storage": "8Gi", "nvidia.com/gpu": "1"}
    assert huge.resources.requests == Profile().resources.requests
    assert huge.node_selector == {"accelerator": "nvidia-t4"}
    assert (huge.limits.start, huge.limits.idle) == (300.0, 1800.0)
    assert config.profiles["default"].node_selector == {}
    assert [profile.description for profile in config.profiles.values()] == ["", "The usual one.", ""]


def test_raw_fragments_stay_as_they_are_and_merge_at_every_depth() -> None:
    config = read("""
        profiles:
          default:
            pod_overrides: {securityContext: {runAsUser: 7, x: {a: 1}}, volumes: [{name: v, emptyDir: {}}], dns: true}
          heir:
            extends: default
            pod_overrides: {securityContext: {x: {b: null, c: -1.5}}, volumes: []}
    """)
    assert config.profiles["heir"].pod_overrides == {
        "securityContext": {"runAsUser": 7, "x": {"a": 1, "b": None, "c": -1.5}},
        "volumes": [],
        "dns": True,
    }


def test_sections_that_may_be_missing() -> None:
    config = read("""
        profiles: {work: {home: {size: 1Gi}}, plain: {home: null}}
        limits: {groups: {students: {users: ["s-*"]}}, starts_per_minute: null}
    """)
    assert config.profiles["work"].home == Home(size="1Gi")
    assert config.profiles["plain"].home is None
    assert config.limits.groups == {"students": Group(("s-*",))}
    assert config.limits.starts_per_minute is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", '"[::1]"', "localhost"])
def test_sandboxes_on_this_machine_listen_on_loopback(host: str) -> None:
    listen = f'"{host.strip(chr(34))}:22"'
    assert read(f"ssh: {{listen: {listen}}}\nsandbox: {{provider: local}}").sandbox.provider == "local"


# --- what its mistakes read like ---


def test_every_mistake_is_reported_at_once_with_its_line() -> None:
    found = mistakes(
        """\
        ssh:
          login_grace: 30
          hostKeys: keys
        limts: {}
        access: {user_ca: nowhere.pub}
        """
    )
    assert found == [
        "gate.yaml:2: ssh.login_grace: a duration needs its unit: 30s, 30m, 30h or 30d.",
        "gate.yaml:3: ssh.hostKeys: unknown key; did you mean 'host_keys'?",
        "gate.yaml:4: limts: unknown key; did you mean 'limits'?",
        "gate.yaml:5: access.user_ca: there is no file nowhere.pub.",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        # where a key belongs
        ("login_grace: 3s", "it belongs under 'ssh:'"),
        ("ssh: {idle: 3s}", "it belongs under a profile's 'limits:'"),
        ("profiles: {a: {name: b}}", "profiles.a.name: unknown key"),
        ("ssh: {qqqqq: 1}", "known here: listen, public_port, host_keys"),
        # YAML's traps
        ("ssh: {banner: no}", 'YAML reads no as a truth value: write "no" in quotes'),
        ("profiles: {a: {image: 1.10}}", 'YAML reads 1.10 as a number: write "1.10" in quotes'),
        ("profiles: {a: {runtime_class: 2024-01-01}}", "as a date"),
        ("limits: {sandboxes: 010}", "YAML reads 010 as 8: write a plain decimal number"),
        ("limits: {sandboxes: 1_000}", "YAML reads 1_000 as 1000"),
        ("ssh: {listen: 12:30}", "'12' is neither an IP address nor a host name"),
        ("ssh: {drain: 1:30}", "to the base 60: write 90s or 1h30m"),
        ("profiles: {no: {}}", "this key is read as no (a truth value) by YAML; put it in quotes"),
        ("ssh: {banner: a}\nssh: {drain: 1s}", "'ssh' is there twice, first on line 1"),
        ("ssh: &a {drain: 1s}\nlimits: {<<: *a}", "'<<' is not read here"),
        ("ssh: {listen: !x y}", "the tag '!x' has no meaning here"),
        ("profiles: {a: {pod_overrides: {b: !x y}}}", "the tag '!x' has no meaning here"),
        ("profiles: {a: {pod_overrides: &r {b: *r}}}", "contains itself"),
        ("profiles: {a: {pod_overrides: {b: &r [*r]}}}", "contains itself"),
        ("ssh:\n  listen: [::]:22", 'needs quotes, such as "[::]:2222"'),
        ("ssh:\n\tlisten: x", "YAML indents with blanks, not with tabs"),
        ("a: b\n---\nc: d", "gate.yaml:2:"),
        ("a: \x01", "gate.yaml:1: a control character"),
        # wrong kinds
        ("[]", "the file: expected a mapping of names to values, found a list"),
        ("ssh: 5", "ssh: expected a mapping"),
        ("ssh: {listen: [a]}", "expected a single value, found a list"),
        ("limits: {sandboxes: many}", "expected a whole number, found many (a text)"),
        ("limits: {sandboxes: null}", "the value is missing"),
        ("limits: {sandboxes: -1}", "-1 is less than 0"),
        ("limits: {sandboxes: 0}", "must be more than 0"),
        ("ssh: {login_grace: 0}", "must be more than 0"),
        ("access: {accept_env: LANG}", "found LANG (a text); write it in brackets: [LANG]"),
        ("log: {level: INFO}", "did you mean 'info'?"),
        ("profiles: {a: {image_pull_policy: never}}", "did you mean 'Never'?"),
        ("version: 2", "this sshgate reads version 1 of the file"),
        # values
        ("ssh: {listen: 2222}", "127.0.0.1:2222 or 0.0.0.0:2222"),
        ("ssh: {listen: '*:22'}", "an address needs a host"),
        ("ssh: {listen: '::1:22'}", 'an IPv6 address stands in brackets and quotes: "[::1]:22"'),
        ("ssh: {listen: 1.2.3:22}", "neither an IP address nor a host name"),
        ("ssh: {listen: 'a:65536'}", "port of 0-65535"),
        ("ssh: {rekey_bytes: 5}", "a size needs its unit"),
        ("ssh: {rekey_bytes: 5GB}", "'5GB' is no size"),
        ("ssh: {drain: 99999d}", "longer than ten years"),
        ("sandbox: {namespace: Foo_}", "is no Kubernetes name"),
        ("access: {accept_env: ['*']}", "would let clients set LD_*"),
        ("access: {accept_env: ['L?_PATH', LD_AUDIT]}", "'LD_AUDIT' would let clients set LD_*"),
        ("access: {accept_env_forced: [HOME]}", "'HOME' would let clients set HOME"),
        ("profiles: {a: {shell: bash}}", "not a path that begins with /"),
        ("profiles: {a: {environment: {A-B: c}}}", "cannot be the name of an environment variable"),
        ("profiles: {a: {resources: {limits: {memory: 4GB}}}}", "no Kubernetes quantity"),
        ("profiles: {a: {home: {size: big}}}", "no Kubernetes quantity"),
        ('profiles: {a: {description: "two\\nlines"}}', "a description is one line"),
        (f"profiles: {{a: {{description: {'x' * 121}}}}}", "at most 120 characters"),
        ("ssh: {public_port: 65536}", "65536 is no port"),
        ("ssh: {public_port: 0}", "ssh.public_port"),
        # profiles
        ("profiles: {Big: {}}", "'Big' cannot name a profile"),
        ("profiles: {a: {extends: b}}", "there is no profile 'b'"),
        ("profiles: {default: {}, a: {extends: defualt}}", "did you mean 'default'?"),
        ("profiles: {a: {extends: b}, b: {extends: a}}", "a circle: a -> b -> a"),
        ("profiles: {a: {extends: a}}", "a circle: a -> a"),
        ("profiles: {a: {binds: [/nowhere]}}", "there is no directory /nowhere"),
        ("profiles: {a: {binds: [/tmp]}}", "only the local provider has it"),
        ("limits: {penalties: {max: 10s}}", "limits.penalties.min: it is more than max"),
        ("web: {listen: '127.0.0.1:2222'}", "web.listen: 127.0.0.1:2222 is the address of ssh.listen as well"),
        ("telemetry: {listen: '0.0.0.0:2222'}", "telemetry.listen: 0.0.0.0:2222 is the address of ssh.listen as well"),
        ("profiles: {a: {network: none, pod_overrides: {hostNetwork: true}}}", "no network policy applies to a pod"),
        ("sandbox: {provider: local}", "write 127.0.0.1:2222, or provider: kubernetes"),
    ],
)
def test_a_mistake_says_what_to_do(text: str, sentence: str) -> None:
    found = mistakes(text)
    assert any(sentence in mistake for mistake in found), found
    assert all(re.match(r"gate\.yaml:\d+: ", mistake) for mistake in found)


@pytest.mark.parametrize("other", ["[::1]:2222", "127.0.0.1:2223", "127.0.0.1:0"])
def test_listeners_that_do_not_meet_may_be(other: str) -> None:
    assert read(f"telemetry: {{listen: '{other}'}}").telemetry.listen == values.address(other)


def test_a_circle_is_reported_once() -> None:
    assert len(mistakes("profiles: {a: {extends: b}, b: {extends: c}, c: {extends: a}}")) == 1


def test_a_wrong_address_is_not_blamed_for_being_reachable() -> None:
    assert len(mistakes("ssh: {listen: 99}\nsandbox: {provider: local}")) == 1


def test_secrets_are_not_repeated() -> None:
    found = mistakes(
        "profiles:\n  a: {environment: {PIN: 4711}}\n  b: {environment: PIN=4711}\n  c: {environment: [4711]}"
    )
    assert len(found) == 3
    assert not any("4711" in mistake for mistake in found)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"ssh:\n  banner: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: this is not UTF-8"):
        load(path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_bytes(b"\xef\xbb\xbflog: {level: debug}\n")
    assert load(path).log.level == "debug"


def loaded(text: str) -> Config | list[str]:
    """What one gets for a text: settings or mistakes, never another exception."""
    try:
        return parse(text, HERE)
    except ConfigError as error:
        return error.mistakes


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_a_list_of_mistakes(text: str) -> None:
    assert loaded(text)


NAMES = ["ssh", "profiles", "default", "extends", "limits", "listen", "binds", "environment"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_any_shape_is_a_configuration_or_a_list_of_mistakes(tree: object) -> None:
    assert loaded(yaml.safe_dump(tree))


@given(st.integers(0, 3650), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]
    assert values.duration(f"{number}{unit}") == pytest.approx(number * factor)


WRONG_TRACES = [
    ("telemetry: {traces: {}}", "telemetry.traces: name the collector"),
    ("telemetry: {traces: {sample: 0.5}}", "telemetry.traces: name the collector"),
    (
        "telemetry: {traces: {endpoint: 'http://me:hunter2@x:4318'}}",
        "telemetry.traces.endpoint: this is no address of a",
    ),
    ("telemetry: {traces: {endpoint: 'x:4318'}}", "write http://host:4318 or https://host/path"),
    ("telemetry: {traces: {endpoint: 'http://x', sample: 1.5}}", "'1.5' is no share: write a number from 0 to 1"),
    ("telemetry: {traces: {endpoint: 'http://x', sample: 10%}}", "'10%' is no share"),
    ("telemetry: {traces: {endpoint: 'http://x', headers_file: nowhere}}", "there is no file"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_TRACES)
def test_traces_that_could_not_be_exported_are_refused(text: str, sentence: str) -> None:
    (loaded,) = mistakes(text)
    assert sentence in loaded
    assert "hunter2" not in loaded


@pytest.mark.parametrize(("text", "share"), [("0", 0.0), ("1", 1.0), ("0.25", 0.25), (".5", 0.5), ("1.0", 1.0)])
def test_a_share_is_a_number_from_nothing_to_all(text: str, share: float) -> None:
    traces = read(f"telemetry: {{traces: {{endpoint: 'https://x/otlp/', sample: {text}}}}}").telemetry.traces
    assert traces == Traces("https://x/otlp", None, Share(share))


WRONG_WORKERS = [
    ("workers: 0", "workers: must be more than 0"),
    ("workers: 33", "workers: 33 are too many: at most 32 share the ports"),
    (
        "workers: 2\nssh: {listen: '127.0.0.1:1'}\nsandbox: {provider: local}",
        "local sandboxes belong to one process: write workers: 1",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_WORKERS)
def test_a_number_of_workers_that_cannot_be_used_is_refused(text: str, sentence: str) -> None:
    (loaded,) = mistakes(text)
    assert sentence in loaded


WRONG_MODELS = [
    ("models: {anthropic: {keys: nowhere}}", "models.anthropic.keys: there is no file or directory"),
    ("git: {github.com: {keys: nowhere}}", "git.github.com.keys: there is no file or directory"),
    ("models: {openai: {upstream: 'https://llm.example/v1'}}", "models.openai.upstream: agents ask for a path"),
    ("models: {gemini: {upstream: 'https://llm.example/v1beta/'}}", "models.gemini.upstream: agents ask for a path"),
    ("profiles: {default: {egress: {private: ['0.0.0.0/0']}}}", "has cloud metadata and this machine as well"),
    ("profiles: {default: {egress: {private: ['::/0']}}}", "has cloud metadata and this machine as well"),
    ("models: {anthropic: {upstream: http://llm.example}}", "in the clear: write https://llm.example"),
    ("models: {anthropic: {upstream: 'https://a:secret@b'}}", "this is no address of a provider"),
    ("models: {anthropic: {server_tools: [Web Search]}}", "is no tool's name"),
    ("profiles: {default: {models: [openai]}}", "there is no models.openai: write models: {openai: {keys: FILE}}"),
    ("profiles: {default: {models: [antropic]}}", "profiles.default.models[0]"),
    (
        "models: {anthropic: {}}\nprofiles: {default: {models: [anthropic], environment: {OPENAI_API_KEY: x}}}",
        "OPENAI_API_KEY would hand a key to every program",
    ),
    ("broker: {port: 80}", "cannot listen below 1024"),
    ("broker: {listen: '127.0.0.1:4712', secret: nowhere}", "broker.secret: there is no file"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_MODELS)
def test_models_git_and_egress_that_would_leak_or_cannot_work_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, HERE)
    assert sentence in str(raised.value)
    assert "secret@" not in str(raised.value)


@pytest.mark.parametrize("url", ["https://llm.example/team", "http://127.0.0.1:8080", "http://litellm.ai.svc:4000"])
def test_upstreams_that_keys_may_be_sent_to(url: str) -> None:
    config = read(f"models: {{anthropic: {{upstream: '{url}'}}}}\nprofiles: {{default: {{models: [anthropic]}}}}")
    assert config.models.anthropic is not None
    assert config.models.anthropic.upstream == url


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("profiles: {default: {egress: {allow: ['@pypi']}}}", "profiles.default.egress closes nothing by itself"),
        ("profiles: {default: {egress: {allow: ['@pypi']}, network: none}}", None),
        (
            "{ssh: {listen: '127.0.0.1:1'}, sandbox: {provider: local}, profiles: {default: {network: none}}}",
            "profiles.default.network has no effect with local sandboxes",
        ),
        (
            "{ssh: {listen: '127.0.0.1:1'}, sandbox: {provider: local}, profiles: {default: {runtime_class: gvisor}}}",
            "profiles.default.runtime_class has no effect with local sandboxes",
        ),
        ("git: {github.com: {keys: .}}", "git.github.com has no effect: no profile lists it"),
        ("{git: {github.com: {keys: .}}, profiles: {default: {git: [github.com]}}}", None),
    ],
)
def test_a_setting_that_does_not_do_what_it_seems_to_is_hinted_at(text: str, sentence: str | None) -> None:
    found = ignored_settings(read(text))
    assert [one for one in found if sentence is None or sentence not in one] == []
    assert bool(found) is (sentence is not None)


# --- the example ---


def example() -> str:
    return (ROOT / "sshgate.example.yaml").read_text()


def test_the_example_is_valid_and_says_the_defaults() -> None:
    assert parse(example(), HERE) == Config()


def test_the_example_names_every_setting() -> None:
    def names(kind: type) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)}

    kinds = {type(getattr(Config(), field.name)) for field in dataclasses.fields(Config)} - {dict, int, type(None)}
    kinds |= {Config, Profile, Home, Group, Web, Tls, Proxy, Traces, type(Profile().limits), type(Profile().resources)}
    wanted = set().union(*map(names, kinds)) - {"name"}
    output = set(re.findall(r"([a-z_]+):(?:\s|$)", example(), re.MULTILINE))
    assert wanted - output == set()


def test_the_examples_web_section_is_valid_and_says_the_defaults() -> None:
    block = re.search(r"^# web:\n(#.*\n)+", example(), re.MULTILINE)
    assert block is not None
    text = re.sub(r"^# ?(?!  #)", "", block[0], flags=re.MULTILINE).replace("public_url: null", "public_url: https://x")
    assert parse(text, HERE).web == dataclasses.replace(Web(), public_url="https://x", secret=HERE.parent / "keys/web")


WRONG_WEB = [
    ("web: {}", "web.listen: passwords and terminals would cross the network to 0.0.0.0:31000 in the clear"),
    ("web: {listen: '127.0.0.1:1', public_url: ftp://x}", "'ftp://x' is no address of a page"),
    ("web: {listen: '127.0.0.1:1', public_url: 'https://x/?a'}", "is no address of a page"),
    ("web: {listen: '127.0.0.1:1', tls: {cert: nowhere}}", "there is no file"),
    ("web: {listen: '127.0.0.1:1', proxy: {}}", "web.proxy: name the addresses"),
    (
        f"web: {{proxy: {{addresses: [10.0.0.5], secret_file: {__file__}}}}}",
        "web.proxy.secret_file: with a proxy that logs people in, say web.public_url",
    ),
    ("web: {listen: '127.0.0.1:1', proxy: {addresses: [10.0.0.1/8]}}", "neither an address nor a network"),
    ("sandbox: {provider: local}\nssh: {listen: '127.0.0.1:1'}\nweb: {public_url: http://x}", "write 127.0.0.1:31000"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_WEB)
def test_a_web_section_that_would_be_unsafe_or_makes_no_sense_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, HERE)
    assert sentence in str(raised.value)


def test_the_examples_suggestions_are_valid_too() -> None:
    text = re.sub(r"^  # (?=( *)(\w+: *|gpu:|work:))", "  ", example(), flags=re.MULTILINE)
    text = re.sub(r"^  #(?=  +\w+:)", "  ", text.replace("groups: {} ", "groups: "), flags=re.MULTILINE)
    config = parse(text, HERE)
    assert set(config.profiles) == {"default", "gpu", "work"}
    assert config.profiles["work"].home == Home()
    assert config.limits.groups == {"students": Group(("s-*",), 20)}
