"""Work on a Ray cluster: many GPUs, many machines. The one package that knows Ray.

A cluster runs *workers*, processes that hold something loaded and do one task after another; on each node as many as it
has GPUs, or processors. A task goes to whoever is free, so a node that joins later takes its share. What is sent is the
name of a function of ours with its arguments, never anything out of a workspace; what comes back is small, and files
lie on a volume that all nodes share, which is checked before any work.

What fails where:

- a task raises: its error is its outcome, and the others are done;
- its process or node dies: the task is done elsewhere, unless it is the reason (`MOST_DEATHS`);
- a node lacks something (`EnvironmentLacks`: disk space, a package, a GPU): it gets no more tasks, and its task goes to
  another one; when no node is left, that is the error;
- the head is gone: an error within some seconds. What was committed stays, so the same command continues there.
"""

from shared.cluster.connection import Cluster, connect
from shared.cluster.workers import MOST_DEATHS, Make, Need, Outcome, Workers

__all__ = ["MOST_DEATHS", "Cluster", "Make", "Need", "Outcome", "Workers", "connect"]
