from . import checks as checks
from . import loopback as loopback
from .commands import add_folders as add_folders
from .launch import ServerSettings as ServerSettings
from .launch import serving as serving
