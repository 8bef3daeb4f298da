"""What Prefect refuses is said in one sentence, with the thing and the reason, and nothing of what was sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tasks.errors import BadSetting
from tasks.prefect_client import refused

SECRET = "mArKeR-5ecret"
REQUEST = httpx.Request("PUT", "http://prefect/api/automations/1", json={"url": SECRET})


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (
            422,
            {
                "exception_message": "Invalid request received.",
                "exception_detail": [
                    {"loc": ["body", "owner_resource"], "msg": "Extra inputs are not permitted", "input": SECRET}
                ],
                "request_body": {"url": SECRET},
            },
            "422, owner_resource: Extra inputs are not permitted.",
        ),
        (409, {"detail": "A block of this name exists."}, "409, A block of this name exists."),
        (500, "no JSON at all", "500, PUT /api/automations/1."),
        (503, {"detail": []}, "503, PUT /api/automations/1."),
    ],
)
def test_a_refusal_names_the_thing_and_the_reason(status: int, answer: Any, said: str) -> None:
    content = {"text": answer} if isinstance(answer, str) else {"json": answer}
    response = httpx.Response(status, request=REQUEST, **content)
    with pytest.raises(BadSetting) as caught, refused("the automation 'x'"):
        response.raise_for_status()
    assert str(caught.value) == f"Prefect refuses the automation 'x': {said}"
    assert SECRET not in str(caught.value)
