#include "reactor/actor.h"

#include <assert.h>

#include "reactor/runtime.h"

tandem_err td_actor_open(td_host *host, const td_actor_ops *ops, void *self, td_actor **out)
{
    assert(ops->name && ops->handle);
    return host->runtime->ops->actor_open(host, ops, self, out);
}

void td_actor_free(td_actor *actor)
{
    if (actor)
        actor->host->runtime->ops->actor_free(actor);
}

void td_actor_post(td_actor *actor, td_message *message)
{
    assert(message->drop && !message->to);
    actor->host->runtime->ops->post(actor, message);
}

void td_actor_post_after(td_actor *actor, td_message *message, uint64_t delay_ms)
{
    assert(message->drop && !message->to);
    actor->host->runtime->ops->post_after(actor, message, delay_ms);
}

tandem_err td_actor_ask(td_actor *actor, td_message *message, td_reply *reply)
{
    assert(message->drop && !message->to);
    actor->host->runtime->ops->post_and_help(actor, message);
    return td_reply_wait(reply, UINT64_MAX);
}

bool td_actor_cancel(td_actor *actor, td_message *message)
{
    return actor->host->runtime->ops->cancel(actor, message);
}

td_host *td_actor_host(const td_actor *actor)
{
    return actor->host;
}

bool td_host_is_current(const td_host *host)
{
    return host->runtime->ops->host_is_current(host);
}

tandem_err td_reply_open(td_runtime *runtime, td_reply **out)
{
    return runtime->ops->reply_open(runtime, out);
}

void td_reply_set(td_reply *reply, tandem_err err)
{
    reply->runtime->ops->reply_set(reply, err);
}

tandem_err td_reply_wait(td_reply *reply, uint64_t timeout_ms)
{
    return reply->runtime->ops->reply_wait(reply, timeout_ms);
}

void td_reply_keep(td_reply *reply)
{
    reply->runtime->ops->reply_keep(reply);
}

void td_reply_free(td_reply *reply)
{
    if (reply)
        reply->runtime->ops->reply_free(reply);
}

void td_runtime_free(td_runtime *runtime)
{
    if (runtime)
        runtime->ops->free(runtime);
}

tandem_err td_host_open(td_runtime *runtime, td_host_kind kind, const char *name, td_host **out)
{
    return runtime->ops->host_open(runtime, kind, name, out);
}

void td_host_stop(td_host *host)
{
    host->runtime->ops->host_stop(host);
}

void td_host_free(td_host *host)
{
    if (host)
        host->runtime->ops->host_free(host);
}

struct uv_loop_s *td_host_loop(td_host *host)
{
    return host->runtime->ops->loop(host);
}

int td_host_fd(td_host *host)
{
    return host->runtime->ops->loop_fd(host);
}

int td_host_timeout_ms(td_host *host)
{
    return host->runtime->ops->loop_timeout_ms(host);
}

tandem_err td_host_poll(td_host *host)
{
    return host->runtime->ops->loop_poll(host);
}
