"""The application and its front ends, put together upon the started machinery: a parts list."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from convex_backend.application.ad_hoc_query import AdHocQueries
from convex_backend.application.application import Application
from convex_backend.application.auth.config import DeployedProviders
from convex_backend.application.auth.fetch import HttpFetcher
from convex_backend.application.auth.jwks import ProviderKeys
from convex_backend.application.auth.signing import SigningKeys
from convex_backend.application.auth.verify import Authenticator
from convex_backend.application.cron_loop import CronLoop
from convex_backend.application.demo import Demo, DemoState
from convex_backend.application.deploy import Deploy
from convex_backend.application.deployed_app import DeployedAppReader
from convex_backend.application.deployment_state import DeploymentState
from convex_backend.application.directory import Directory
from convex_backend.application.environment import EnvironmentVariables
from convex_backend.application.file_collector import FileCollector
from convex_backend.application.file_storage import FileStorage
from convex_backend.application.function_log import FunctionLog
from convex_backend.application.live_queries import LiveQueries
from convex_backend.application.node_actions import NodeActions
from convex_backend.application.node_dependencies import NodeDependencies, npm_environment
from convex_backend.application.node_packages import NodePackages
from convex_backend.application.push_history import PushHistory
from convex_backend.application.push_store import PushStore
from convex_backend.application.rollback import Rollbacks
from convex_backend.application.run_query import LiveDatabase, QueryRuns
from convex_backend.application.scheduler import Scheduler
from convex_backend.application.scheduling import JobScheduling
from convex_backend.application.services import Services
from convex_backend.application.simple_deploy import SimpleDeploy
from convex_backend.application.system_functions import SystemFunctions
from convex_backend.deferreds import from_coroutine
from convex_backend.functions.context import CallServices, DeploymentInfo
from convex_backend.functions.npm_install import npm_install
from convex_backend.functions.syscalls import full_table
from convex_backend.service.backend import Deployment
from convex_backend.service.demo_files import read_demo
from convex_backend.service.library import read_library
from convex_backend.sync.endpoint import SyncResource, make_sync_resource, native_validation
from convex_backend.web.site import BackendSite, make_site
from convex_backend.web.site_port import make_site_port

if TYPE_CHECKING:
    from convex_backend.service.engine import Machinery

_SOCKETS_SECONDS = 2.5
_CURSOR = "cursor"
# What the sync socket is made of, in pieces of similar weight, from the bottom up.
_SOCKET_MODULES = (
    "pycparser.c_lexer",
    "cffi.cparser",
    "autobahn.util",
    "autobahn.wamp.message",
    "autobahn.websocket",
    "autobahn.nvx",
    "autobahn.websocket.protocol",
    "autobahn.twisted.websocket",
    "convex_backend.sync.messages",
    "convex_backend.sync.protocol",
)


class WebFront:
    """HTTP and the sync socket on the main port, HTTP actions on the other. See ``backend.Front``."""

    _log = Logger()

    def __init__(
        self,
        application: Application,
        directory: Directory,
        sync: SyncResource,
        cloud: BackendSite,
        jobs: Sequence[Scheduler | CronLoop | FileCollector],
    ) -> None:
        self._application = application
        self._jobs = jobs
        self._directory = directory
        self._sync = sync
        self.cloud = cloud
        self.site = make_site_port(cloud)

    def start_jobs(self) -> None:
        """See ``backend.Front``."""
        for loop in self._jobs:
            loop.start()

    async def stop_jobs(self) -> None:
        """See ``backend.Front``."""
        stopping = [from_coroutine(loop.stop()) for loop in self._jobs]
        try:
            for stopped in stopping:
                await stopped
        except CancelledError:
            for stopped in stopping:
                stopped.addErrback(lambda failure: failure.trap(CancelledError) and None)
                stopped.cancel()
            raise

    async def close_sockets(self) -> None:
        """See ``backend.Front``."""
        await self._sync.close_all(1001, timeout_seconds=_SOCKETS_SECONDS)

    async def finish_requests(self) -> None:
        """See ``backend.Front``."""
        try:
            await self._application.deploy.stop()
            await self.cloud.idle()
        except CancelledError:
            self.cloud.cancel_requests()
            raise
        finally:
            self._application.live.stop()
            self._directory.stop()

    async def start_demo(self) -> bool:
        """See ``backend.Front``."""
        return await self._application.demo.start() is not DemoState.NOT_EMPTY

    async def alive(self) -> None:
        """See ``backend.Front``: everything that is pending now has become durable."""
        committer = self._application.services.database.committer
        await committer.wait_durable(committer.pending_ts)

    def load_ahead(self) -> Iterator[None]:
        """See ``backend.Front``."""
        for name in _SOCKET_MODULES:
            try:
                importlib.import_module(name)
            except ImportError:
                # Autobahn does without its native part, and then without what that needs.
                self._log.debug("{name} is not there to be loaded", name=name)
            yield
        self._sync.prepare()
        if not native_validation():
            self._log.warn(
                "Autobahn runs without its native code (NVX): messages of live sockets cost several times more. "
                "Install autobahn with a C compiler at hand, and leave AUTOBAHN_USE_NVX unset"
            )
        yield
        yield from self.cloud.prepare()


async def compose(machinery: Machinery, deployment: Deployment) -> WebFront:
    """Make the application and its front ends.

    :param machinery: started; from here on it finds module texts among what has been pushed.
    """
    settings, database, reactor = deployment.settings, machinery.database, machinery.reactor
    registry, now_ns = machinery.registry, machinery.clock.now_ns
    store = PushStore(database=database)
    history = PushHistory(store=store, now_ns=now_ns)
    machinery.modules.read = store.module_text
    directory = Directory(database=database, cloud_origin=settings.cloud_origin, site_origin=settings.site_origin)
    directory.start()
    sealer = deployment.sealer

    def seal(data: bytes) -> str:
        return sealer.seal(_CURSOR, data)

    def unseal(text: str) -> bytes:
        return sealer.unseal(_CURSOR, text)

    def now_seconds() -> float:
        return now_ns() / 1e9

    signing_keys = SigningKeys(
        database=database, sealer=sealer, cloud_origin=settings.cloud_origin, now_seconds=now_seconds
    )
    deployment_state = DeploymentState()
    files = FileStorage(
        database=database,
        blobs=machinery.blobs,
        sealer=sealer,
        cloud_origin=lambda: settings.cloud_origin,
        check_running=deployment_state.check_files,
        clock=reactor,
        now_ms=lambda: now_ns() // 1_000_000,
        random_bytes=os.urandom,
        registry=registry,
    )
    jobs = JobScheduling(database=database, directory=directory, now_ns=now_ns)
    node = _node_actions(machinery, store, directory)
    services = Services(
        settings=settings,
        database=database,
        directory=directory,
        system_functions=SystemFunctions(
            database=database,
            directory=directory,
            store=store,
            settings=settings,
            seal=seal,
            unseal=unseal,
            files=files,
        ),
        isolates=machinery.isolates,
        actions=machinery.actions,
        calls=CallServices(
            directory=directory,
            deployment=DeploymentInfo(settings.instance_name),
            random_bytes=os.urandom,
            now_ms=lambda: now_ns() // 1_000_000,
            seal=seal,
            unseal=unseal,
            signer=signing_keys,
            scheduling=jobs,
            files=files,
        ),
        syscalls=full_table(),
        function_log=FunctionLog(reactor, now_ns, registry),
        random_bytes=os.urandom,
        now_ns=now_ns,
        jobs=jobs,
        deployment_state=deployment_state,
        node=node,
    )
    await deployment_state.follow(database)
    deploy = Deploy(
        database=database,
        store=store,
        directory=directory,
        analyzer=machinery.analyzer,
        clock=reactor,
        random_bytes=os.urandom,
        now_ns=now_ns,
        history=history,
        node=node,
    )
    simple_deploy = SimpleDeploy(deploy=deploy, analyzer=machinery.analyzer, read_library=read_library)
    ad_hoc_queries = AdHocQueries(
        services=services, store=store, analyzer=machinery.analyzer, read_library=read_library
    )
    rollbacks = Rollbacks(database=database, history=history, deploy=deploy)
    demo = Demo(database=database, store=store, history=history, simple_deploy=simple_deploy, read_files=read_demo)
    deployed_app = DeployedAppReader(database=database, store=store, history=history, server_version=settings.version)
    environment = EnvironmentVariables(database=database, store=store, directory=directory, analyzer=machinery.analyzer)
    queries = QueryRuns(services, sealer)
    live = LiveQueries(
        queries, LiveDatabase(services), reactor, registry, parallel_runs=2 * machinery.configuration.runners
    )
    authenticator = Authenticator(
        DeployedProviders(database=database, store=store).read,
        ProviderKeys(HttpFetcher(reactor), reactor.seconds),
        now_seconds,
        redacted=settings.redact_logs_to_client,
    )
    application = Application(
        services,
        deployment.keys,
        live,
        queries,
        deploy,
        environment,
        authenticator,
        signing_keys,
        simple_deploy=simple_deploy,
        ad_hoc_queries=ad_hoc_queries,
        rollbacks=rollbacks,
        demo=demo,
        deployed_app=deployed_app,
        files=files,
    )
    sync = make_sync_resource(application, reactor, registry)
    loops = [
        loop(
            application,
            reactor=reactor,
            registry=registry,
            random=random.random,
            options=machinery.configuration.scheduler,
        )
        for loop in (Scheduler, CronLoop)
    ]
    site = make_site(application, sync, registry, reactor, machinery.configuration.site_url)
    return WebFront(application, directory, sync, site, [*loops, files.collector])


def _node_actions(machinery: Machinery, store: PushStore, directory: Directory) -> NodeActions:
    """What runs ``"use node"`` actions; its files are in ``node`` of the local storage, made when they are needed."""
    reactor = machinery.reactor
    root = machinery.configuration.local_storage / "node"

    def random_name() -> str:
        return os.urandom(8).hex()

    def install(folder: Path, cache: Path) -> Awaitable[str | None]:
        return npm_install(reactor, folder, cache, npm_environment(os.environ))

    pool = reactor.getThreadPool()
    dependencies = NodeDependencies(
        root / "dependencies", install=install, reactor=reactor, pool=pool, random_name=random_name
    )
    packages = NodePackages(
        root / "packages",
        dependencies,
        read_text=store.module_text,
        is_live=machinery.node.is_live,
        reactor=reactor,
        pool=pool,
        random_name=random_name,
    )
    return NodeActions(directory=directory, packages=packages, executor=machinery.node)
