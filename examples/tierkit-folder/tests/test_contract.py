from tierkit_folder import FolderOptions, FolderTier

from tierkit.testing import TierContract


class TestFolderTier(TierContract):
    def open_tier(self, context, path):
        return FolderTier(context, FolderOptions(path=path))
