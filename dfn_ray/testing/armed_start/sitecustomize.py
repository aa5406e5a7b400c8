"""Arms the process. Python imports a module of this name when it starts."""

from dfn_ray.testing import lethal

lethal.arm_process()
