"""Lines of `bench wrap` that are refused before the program starts, and what no file may hold."""

import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.cli import main
from bench.core.errors import BenchError
from bench.run import wrap_session
from bench.run.planning.wrap_request import HIDDEN, WrapRequest, hidden

MISTAKES = r"""
=> needs a command, such as: bench wrap -- python train.py
-- => needs a command
'' => the command '' is not found
no-such-program train.py => 'no-such-program' is not found; it is started without a shell
./train.sh => is not executable; start it by its program
'cd sub && python train.py' => is not found; it is started without a shell
--items-per-step 0 true => --items-per-step 0 must be at least 1
--items-per-step x true => 'x' is not a valid int
--step banana true => --step 'banana' is not one of optimizer, forward, loader, mark
--step optimiser true => did you mean 'optimizer'?
--mode throttled true => needs a --link
--mode banana true => --mode 'banana' is not one of
--mode real --link pcie4 --devices 2 true => leave --link out
--devices 8 true => --devices needs --link
--devices 0 --link pcie4 true => --devices 0 must be from 1
--devices x true => --devices 'x' needs whole numbers
--link pcie4 true => --link needs --devices
--link pcie9 --devices 8 true => pcie9
--link pcie4 --devices 8 --tp 3 true => --tp 3 does not divide --devices 8
--threads 0 true => --threads 0 must be from 1
--trials 0 true => --trials 0 must be from 1
--profile fast true => --profile 'fast' is not one of smoke, quick
--timeout 10 true => --timeout '10' needs a number with a unit
--timeout 0s true => --timeout must be more than nothing
--workload llm true => No such option
--out /proc/x true => results cannot be written here
"""


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.sh").write_text("true")
    monkeypatch.setattr(wrap_session, "run_script", None)


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
def test_mistake_is_one_line_before_anything_is_started(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, _, said = line.partition("=> ")
    assert main(["wrap", *shlex.split(words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ") and error.count("\n") == 1 and said in error


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("RANK", "1", "itself a rank here (RANK=1); put the launcher into the command"),
        ("TORCH_DEVICE_BACKEND_AUTOLOAD", "0", "keeps torch from calling"),
        ("BENCH_WRAP_STEP", "banana", "(set by BENCH_WRAP_STEP)"),
    ],
)
def test_surroundings_that_cannot_be_are_refused(
    name: str,
    text: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, text)
    assert main(["wrap", "true"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_flags_behind_the_command_are_the_program_s(
    dashes: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[WrapRequest] = []

    def begin(request: WrapRequest, **_: object) -> None:
        asked.append(request)
        raise BenchError("enough")

    monkeypatch.setattr(wrap_session, "begin_wrapped", begin)
    program = [sys.executable, "train.py", "--epochs", "1", "-q", "--traceback", "--", "--json"]
    assert main(["wrap", "--traceback", "--step", "loader", *dashes, *program]) == 2
    (request,) = asked
    assert (request.command, request.step) == (tuple(program), "loader")


# Secrets -----------------------------------------------------------------------------------------

NAMES = [
    "--api-token", "--password", "--hf_token", "--token", "--secret", "--api-key", "--apikey",
    "--auth", "--aws-secret-access-key", "-password", "--wandb.api_key", "--private-key",
]  # fmt: skip
KEYS = [
    "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PGPASSWORD", "token",
    "trainer.logger.api_key", "+wandb.token", "--set=token", "db_passwd", "client_secret",
]  # fmt: skip
SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=4).filter(
    lambda text: not text.startswith("-") and "*" not in text
)


def secret_words(secret: str) -> list[list[str]]:
    urlish = "".join(one for one in secret if one not in "/?#")
    forms = [[name, secret] for name in NAMES] + [[f"{name}={secret}"] for name in NAMES]
    forms += [[f"{key}={secret}"] for key in KEYS]
    forms += [[f'{{"{key}": "{secret}"}}'] for key in ("api_key", "hf_token")]
    forms += [["bash", "-c", f"HF_TOKEN={secret} python train.py"], ["-H", f"Bearer {secret}"]]
    forms += [[f"https://user:{urlish}@host/path"], [f"--url=s3://{urlish}@bucket/x"]] * (
        len(urlish) >= 4
    )
    forms += [[f"https://host/x?token={secret}"], ["-H", f"Authorization: Basic {secret}"]]
    return forms


@given(secret=SECRETS)
@example(secret="=a=b=c")
@example(secret="p@ss:w@rd")
@example(secret="'quoted'")
def test_no_secret_is_left_in_any_form(secret: str) -> None:
    for words in secret_words(secret):
        kept = hidden(["python", "train.py", *words, "--epochs", "2"])
        assert kept[-2:] == ["--epochs", "2"] and any(HIDDEN in one for one in kept), words
        left = " ".join(kept).replace(HIDDEN, "")
        frame = " ".join(["python", "train.py", *words, "--epochs", "2"]).replace(secret, "")
        assert secret not in left or secret in frame, words


def test_what_is_no_secret_is_kept() -> None:
    plain = shlex.split(
        "python train.py --max-tokens 512 --tokenizer gpt2 --num-passes 3 --author jane "
        "--keys a,b lr=0.1 optimizer.name=adam https://host/x?lr=1 --monkey 3 --passes=2"
    )
    assert hidden(plain) == plain


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("python -u train.py --config small.py", "train"),
        ("python -m pkg.train out.py", "pkg.train"),
        ("python -m torch.distributed.run --nproc-per-node 8 train.py", "train"),
        ("torchrun --standalone -m pkg.train", "pkg.train"),
        ("python -m accelerate.commands.launch -m pkg.train", "pkg.train"),
        ("python -m cProfile -o steps.prof ./tools/train.py", "train"),
        ("bash scripts/train.sh --epochs 1", "train"),
        ("lightning fit --config small.yaml", "lightning"),
    ],
)
def test_a_row_is_named_after_the_program_and_not_its_launcher(command: str, program: str) -> None:
    assert WrapRequest(command=tuple(command.split())).program == program
