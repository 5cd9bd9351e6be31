"""What the use cases share. Made once, by ``service/backend.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from convex_backend.application.deployment_state import DeploymentState
from convex_backend.application.function_log import FunctionLog
from convex_backend.application.scheduling import JobScheduling
from convex_backend.application.settings import Settings
from convex_backend.database.database import Database
from convex_backend.functions.context import CallServices
from convex_backend.functions.directory import FunctionDirectory
from convex_backend.functions.runner_pool import RunnerPool
from convex_backend.functions.syscalls import SyscallTable

if TYPE_CHECKING:
    from convex_backend.application.node_actions import NodeRunner
    from convex_backend.application.system_functions import SystemFunctions


@attrs.frozen(slots=True, eq=False)
class Services:
    """The parts that use cases work with.

    :param isolates: children without network, for queries and mutations.
    :param actions: children for actions of the default runtime.
    :param calls: what every call context shares.
    :param now_ns: wall clock.
    :param node: runs ``"use node"`` actions.
    :param jobs: scheduled functions. :param deployment_state: whether functions run.
    """

    settings: Settings
    database: Database
    directory: FunctionDirectory
    system_functions: SystemFunctions
    isolates: RunnerPool
    actions: RunnerPool
    calls: CallServices
    syscalls: SyscallTable
    function_log: FunctionLog
    random_bytes: Callable[[int], bytes]
    now_ns: Callable[[], int]
    jobs: JobScheduling
    deployment_state: DeploymentState = attrs.field(factory=DeploymentState)
    node: NodeRunner | None = None
