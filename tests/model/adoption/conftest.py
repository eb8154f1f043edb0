from tests.redis_for_tests import connection, jobs, redis_url, settings

__all__ = ["connection", "jobs", "redis_url", "settings"]
