"""What the Hub's client raises while we write to the Hub, in words, and whether trying again can help."""

from __future__ import annotations

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from pix2pix_hub.util import UserError

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
LOGIN = f"Run `hf auth login`, or set HF_TOKEN, with a token that may write ({TOKENS_PAGE})."
# timeout, conflict, somebody else's commit, too many requests: the Hub may say yes a little later; so may 5xx
TEMPORARY_STATUS = {408, 409, 412, 425, 429}
ANSWERED_NONSENSE = (AssertionError, AttributeError, LookupError, TypeError, ValueError)  # the client, without a check


class PushError(UserError):
    """A push that failed; `temporary`: the same again may work."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


def as_push_error(error: Exception, repo_id: str) -> PushError:
    """The `PushError` for what the client raised; anything that is no failure of the Hub or the network is re-raised.

    Uploads wrap their errors: the chain of causes is looked through.
    """
    if isinstance(error, UserError) and not isinstance(error, PushError):
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if (found := _explained(cause, repo_id)) is not None:
            return found
        cause = cause.__cause__
    if isinstance(error, ANSWERED_NONSENSE):
        return PushError(f"the Hub's answer makes no sense ({_one_line(error)[:300]})", temporary=True)
    raise error


def _explained(error: BaseException, repo_id: str) -> PushError | None:
    if isinstance(error, PushError):
        return error
    if isinstance(error, LocalTokenNotFoundError):
        return PushError(f"pushing to {repo_id} needs a Hub token. {LOGIN}")
    if isinstance(error, OfflineModeIsEnabled):
        return PushError(f"pushing to {repo_id} needs the Hub, and HF_HUB_OFFLINE is set: unset it.")
    if isinstance(error, HFValidationError):
        return PushError(f"{repo_id!r} is no repository id ({error}): give user/name.")
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata"):
        return PushError(f"the Hub does not accept the model card: {_one_line(error)}.")
    if isinstance(error, HfHubHTTPError):
        return _answered(error, repo_id)
    if isinstance(error, OSError | TimeoutError) or type(error).__module__.split(".")[0].startswith("httpx"):
        return PushError(f"the Hub cannot be reached ({_one_line(error)})", temporary=True)
    return None


def _answered(error: HfHubHTTPError, repo_id: str) -> PushError:
    status = error.response.status_code
    said = error.server_message or _one_line(error)
    if status == 401:
        return PushError(f"the Hub does not accept the token for {repo_id} ({said}). {LOGIN}")
    if status == 403:
        return PushError(f"the token may not write to {repo_id} ({said}). {LOGIN}")
    temporary = status in TEMPORARY_STATUS or status >= 500
    return PushError(f"the Hub answered {status} ({' '.join(said.split())})", temporary=temporary)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
