"""The facade handed to the front ends. No logic: each method is one use case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from convex_backend.application import calls
from convex_backend.application.deletion import Deletion
from convex_backend.application.http_routing import HttpRouting
from convex_backend.application.job_admin import JobAdmin
from convex_backend.application.keys import Keys
from convex_backend.application.live_queries import LiveQueries
from convex_backend.application.run_action import run_action
from convex_backend.application.run_http_action import HttpActionRun, HttpRequest, ResponseListener
from convex_backend.application.run_mutation import Mutations
from convex_backend.application.run_query import QueryRuns, run_query
from convex_backend.application.services import Services
from convex_backend.application.settings import Settings
from convex_backend.application.types import Caller, CallResult, Identity, MutationKey
from convex_backend.errors import ConvexError

if TYPE_CHECKING:
    from convex_backend.application.ad_hoc_query import AdHocQueries
    from convex_backend.application.auth.signing import SigningKeys
    from convex_backend.application.auth.verify import Authenticator
    from convex_backend.application.demo import Demo
    from convex_backend.application.deploy import Deploy
    from convex_backend.application.deployed_app import DeployedAppReader
    from convex_backend.application.directory import Directory
    from convex_backend.application.environment import EnvironmentVariables
    from convex_backend.application.file_storage import FileStorage
    from convex_backend.application.function_log import FunctionLog
    from convex_backend.application.rollback import Rollbacks
    from convex_backend.application.simple_deploy import SimpleDeploy


class Application:
    """Everything that a client can ask for."""

    def __init__(
        self,
        services: Services,
        keys: Keys,
        live: LiveQueries,
        queries: QueryRuns,
        deploy: Deploy,
        environment: EnvironmentVariables,
        authenticator: Authenticator,
        signing_keys: SigningKeys,
        *,
        simple_deploy: SimpleDeploy,
        ad_hoc_queries: AdHocQueries,
        rollbacks: Rollbacks,
        demo: Demo,
        deployed_app: DeployedAppReader,
        files: FileStorage,
    ) -> None:
        self.services = services
        self.keys = keys
        self.simple_deploy = simple_deploy
        self.ad_hoc_queries = ad_hoc_queries
        self.rollbacks = rollbacks
        self.demo = demo
        self.deployed_app = deployed_app
        self.files = files
        self.live = live
        self.deploy = deploy
        self.environment = environment
        self.deletion = Deletion(services.database)
        self.mutations = Mutations(services)
        self.job_admin = JobAdmin(services)
        self.http_routing = HttpRouting(cast("Directory", services.directory))
        self.signing_keys = signing_keys
        self._queries = queries
        self._authenticator = authenticator

    @property
    def settings(self) -> Settings:
        """The deployment's configuration."""
        return self.services.settings

    @property
    def function_log(self) -> FunctionLog:
        """What functions printed and how they ended."""
        return self.services.function_log

    async def run_query(
        self,
        path: str,
        args: bytes,
        identity: Identity,
        caller: Caller,
        *,
        component_path: str | None = None,
        ts: int | None = None,
    ) -> CallResult:
        """See :func:`convex_backend.application.run_query.run_query`."""
        return await run_query(
            self.services,
            self.live,
            self._queries,
            path,
            args,
            identity,
            caller,
            component_path=component_path,
            ts=ts,
        )

    async def run_queries(
        self, queries: Sequence[tuple[str, bytes]], identity: Identity, caller: Caller
    ) -> list[CallResult]:
        """Several queries at one timestamp, each as :meth:`run_query`."""
        ts = self.latest_ts()
        unpin = self.services.database.committer.snapshots.open(ts).close
        try:
            return [await self.run_query(path, args, identity, caller, ts=ts) for path, args in queries]
        finally:
            unpin()

    async def run_mutation(
        self,
        path: str,
        args: bytes,
        identity: Identity,
        caller: Caller,
        *,
        component_path: str | None = None,
        key: MutationKey | None = None,
    ) -> CallResult:
        """See :meth:`convex_backend.application.run_mutation.Mutations.run`."""
        return await self.mutations.run(path, args, identity, caller, component_path=component_path, key=key)

    async def run_action(
        self, path: str, args: bytes, identity: Identity, caller: Caller, *, component_path: str | None = None
    ) -> CallResult:
        """See :func:`convex_backend.application.run_action.run_action`."""
        return await run_action(self, path, args, identity, caller, component_path=component_path)

    def http_action(
        self, request: HttpRequest, identity: Identity, caller: Caller, listener: ResponseListener
    ) -> HttpActionRun:
        """One request to the HTTP actions, to be run; see :class:`convex_backend.application.run_http_action.HttpActionRun`."""
        return HttpActionRun(self, request, identity, caller, listener)

    async def run_function(
        self, path: str, args: bytes, identity: Identity, caller: Caller, *, component_path: str | None = None
    ) -> CallResult:
        """Run a function of whatever kind it is (``/api/function``, ``/api/run``)."""
        wanted = calls.target(path, component_path, identity, any_kind=True)
        try:
            if wanted.path.is_system:
                kind = self.services.system_functions.kind(wanted, identity)
            else:
                kind = (await calls.resolve(self.services, None, wanted)).kind
        except ConvexError as error:
            failure = calls.function_error(error)
            return calls.call_result(self.services, identity, caller, self.latest_ts(), None, failure, ())
        if kind == "query":
            return await self.run_query(path, args, identity, caller, component_path=component_path)
        if kind == "mutation":
            return await self.run_mutation(path, args, identity, caller, component_path=component_path)
        return await self.run_action(path, args, identity, caller, component_path=component_path)

    def latest_ts(self) -> int:
        """The newest durable timestamp (ns)."""
        return self.services.database.committer.durable_ts

    async def observe_ts(self, ts: int) -> None:
        """A client has seen *ts*: be at least there (A10). :raises ServerFault: it is in the future."""
        await self.services.database.committer.advance_to(ts)

    async def authenticate_user(self, token: str) -> Identity:
        """The identity behind a user's JWT; see :meth:`convex_backend.application.auth.verify.Authenticator.authenticate`."""
        return await self._authenticator.authenticate(token)
