// The headers serve C++ as well. TANDEM_OPTIONS_INIT and its like want C++20; older dialects set
// the size themselves, as here.
#include <cstdio>

#include <tandem/tandem.h>

int main()
{
    tandem_options options = {};
    tandem_sync_options sync_options = {};
    tandem_reactor *reactor = nullptr;
    tandem_sync *sync = nullptr;
    tandem_err err;

    options.size = sizeof(options);
    sync_options.size = sizeof(sync_options);
    sync_options.offline = true;
    err = tandem_open(&options, &reactor);
    if (err == TANDEM_OK)
        err = tandem_sync_open(reactor, &sync_options, &sync);
    std::printf("%s, model %s\n", tandem_err_name(err), tandem_model_kv.name);
    tandem_sync_close(sync);
    tandem_close(reactor);
    return err != TANDEM_OK;
}
