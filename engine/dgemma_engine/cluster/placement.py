"""Whether the replicas of a configuration fit the machines of a Ray cluster: Ray itself would wait without end."""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from dgemma_engine.cluster.arguments import read_arguments
from dgemma_engine.cluster.configuration import own_applications
from dgemma_engine.errors import EngineUnavailable


def require_room(configuration: ServeDeploySchema, resources: Mapping[str, float]) -> None:
    """Checks that all replicas can be placed.

    Args:
        configuration: as `read_configuration` returned it.
        resources: of all machines together, `GPU` and `CPU`.

    Raises:
        EngineUnavailable: there are too few cards or cores; the message has the numbers and the remedy.
    """
    needed = {"GPU": 0.0, "CPU": 0.0}
    for application in own_applications(configuration):
        for name, amount in _needed(application).items():
            needed[name] += amount
    for name, argument in (("GPU", "gpus"), ("CPU", "cpus")):
        there = resources.get(name, 0.0)
        if needed[name] > there:
            remedy = f"lower num_replicas, or {argument} in args"
            if name == "GPU" and not there:
                remedy = "for a machine without cards set gpus: 0 and device: cpu in args"
            raise EngineUnavailable(
                f"the replicas need {needed[name]:g} {name} in all, and there is {there:g} on this machine; {remedy}"
            )


def _needed(application: ServeApplicationSchema) -> dict[str, float]:
    arguments = read_arguments(application.args)
    gpus, cpus, num_replicas = arguments.gpus, arguments.cpus, 1
    for deployment in application.deployments:
        if isinstance(deployment.num_replicas, int):
            num_replicas = deployment.num_replicas
        # Ray's mark for a field that was not set has neither.
        own_gpus = getattr(deployment.ray_actor_options, "num_gpus", None)
        own_cpus = getattr(deployment.ray_actor_options, "num_cpus", None)
        gpus = gpus if own_gpus is None else own_gpus
        cpus = cpus if own_cpus is None else own_cpus
    return {"GPU": gpus * num_replicas, "CPU": cpus * num_replicas}
