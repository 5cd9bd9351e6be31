"""What the use cases need to know of the deployment's configuration. Fixed for the life of the process."""

from __future__ import annotations

import attrs


@attrs.frozen(slots=True)
class Settings:
    """The deployment as its functions and clients see it.

    :param instance_name: free text without ``|`` and ``:`` (``admin_keys.md`` section 1).
    :param cloud_origin: public origin of the API and the sync socket, no trailing slash (``CONVEX_CLOUD_URL``).
    :param site_origin: public origin of HTTP actions, no trailing slash (``CONVEX_SITE_URL``).
    :param version: what ``/version`` answers.
    :param redact_logs_to_client: clients get neither log lines nor the texts of server errors.
    :param action_timeout_seconds: wall limit of one action.
    """

    instance_name: str
    cloud_origin: str
    site_origin: str
    version: str
    redact_logs_to_client: bool = False
    action_timeout_seconds: float = 600.0
