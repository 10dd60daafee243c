#!/usr/bin/env escript
%%! -noinput
%% evocell from Erlang: a port with {packet, 4}, which is what `evocell serve --framing packet4` speaks.
%%
%%   EVOCELL=../../.venv/bin/evocell escript evocell.escript
%%
%% It needs nothing but Erlang, so it has a small MessagePack codec of its own at the end: enough for plain data.
%% A program of one's own uses a library, `msgpack` or Elixir's `Msgpax`.

main(_) ->
    Command = os:find_executable(os:getenv("EVOCELL", "evocell")),
    Port = open_port({spawn_executable, Command},
                     [binary, exit_status, {packet, 4}, {args, ["serve", "--framing", "packet4"]}]),
    Hello = call(Port, 0, <<"hello">>, #{<<"protocol">> => 1, <<"client">> => <<"erlang example">>}),
    io:format("~s~n", [maps:get(<<"server">>, Hello)]),

    Source = <<"def solve(n): return n * n">>,
    Id = call(Port, 1, <<"create_sandbox">>, #{<<"source">> => Source}),
    #{<<"value">> := 49} = call(Port, 2, <<"run">>, #{<<"id">> => Id, <<"entry">> => <<"solve">>, <<"args">> => [7]}),
    io:format("7 * 7 = 49~n"),

    %% The expected answers stay here: the server asks for the score of each case.
    Cases = [#{<<"args">> => [N]} || N <- [1, 2, 3]],
    Evaluation = #{<<"entry">> => <<"solve">>, <<"cases">> => Cases, <<"score">> => #{<<"function">> => <<"score">>}},
    Sources = [Source, <<"def solve(n): return n">>, <<"def solve(n">>],
    Results = call(Port, 3, <<"evaluate">>, #{<<"sources">> => Sources, <<"evaluation">> => Evaluation}),
    [io:format("~p ~p~n", [maps:get(<<"fitness_score">>, R), maps:get(<<"reason">>, R)]) || R <- Results],

    {error, Error} = ask(Port, 4, <<"get_info">>, #{<<"id">> => <<"nobody">>}),
    io:format("~s: ~s~n", [maps:get(<<"code">>, Error), maps:get(<<"message">>, Error)]),
    nil = call(Port, 5, <<"shutdown">>, #{}),
    %% Closing the port would do as well: the server ends with its input, and its sandboxes with it.
    receive {Port, {exit_status, 0}} -> io:format("the server has ended~n") after 5000 -> halt(1) end.

%% What the sandboxed function returned for case Index of ours, counted from 0.
score(Index, Value) ->
    case Value =:= (Index + 1) * (Index + 1) of true -> 1; false -> 0 end.

call(Port, MsgId, Method, Params) ->
    {ok, Result} = ask(Port, MsgId, Method, Params),
    Result.

ask(Port, MsgId, Method, Params) ->
    send(Port, [0, MsgId, Method, [Params]]),
    answer(Port, MsgId).

send(Port, Message) -> port_command(Port, encode(Message)).

%% Wait for an answer, and do meanwhile what the server asks. A server process of one's own would keep a map
%% from message ids to callers instead, and wait for nobody.
answer(Port, MsgId) ->
    receive
        {Port, {data, Data}} ->
            case decode(Data) of
                [1, MsgId, nil, Result] -> {ok, Result};
                [1, MsgId, Error, nil] -> {error, Error};
                [0, Asked, <<"call">>, [#{<<"function">> := <<"score">>, <<"args">> := [Index, Value]}]] ->
                    send(Port, [1, Asked, nil, score(Index, Value)]),
                    answer(Port, MsgId);
                [2, <<"closing">>, [Reason]] -> {error, Reason};
                [2, _Method, _Params] -> answer(Port, MsgId)
            end;
        {Port, {exit_status, Status}} -> {error, #{<<"code">> => <<"exit">>, <<"message">> => integer_to_binary(Status)}}
    end.

%% MessagePack, as much of it as plain data need: nil, booleans, integers, floats, binaries as strings, lists, maps.

encode(nil) -> <<16#c0>>;
encode(false) -> <<16#c2>>;
encode(true) -> <<16#c3>>;
encode(N) when is_integer(N), N >= 0 -> <<16#cf, N:64>>;
encode(N) when is_integer(N) -> <<16#d3, N:64/signed>>;
encode(F) when is_float(F) -> <<16#cb, F/float>>;
encode(S) when is_binary(S) -> <<16#db, (byte_size(S)):32, S/binary>>;
encode(L) when is_list(L) -> iolist_to_binary([<<16#dd, (length(L)):32>> | [encode(X) || X <- L]]);
encode(M) when is_map(M) ->
    iolist_to_binary([<<16#df, (map_size(M)):32>> | [[encode(K), encode(V)] || {K, V} <- maps:to_list(M)]]).

decode(Data) ->
    {Value, <<>>} = value(Data),
    Value.

value(<<N, R/binary>>) when N < 16#80 -> {N, R};
value(<<N/signed, R/binary>>) when N >= -32, N < 0 -> {N, R};
value(<<2#1000:4, N:4, R/binary>>) -> pairs(N, R, #{});
value(<<2#1001:4, N:4, R/binary>>) -> items(N, R, []);
value(<<2#101:3, N:5, S:N/binary, R/binary>>) -> {S, R};
value(<<16#c0, R/binary>>) -> {nil, R};
value(<<16#c2, R/binary>>) -> {false, R};
value(<<16#c3, R/binary>>) -> {true, R};
value(<<16#c4, N:8, B:N/binary, R/binary>>) -> {B, R};
value(<<16#c5, N:16, B:N/binary, R/binary>>) -> {B, R};
value(<<16#c6, N:32, B:N/binary, R/binary>>) -> {B, R};
value(<<16#cb, F/float, R/binary>>) -> {F, R};
value(<<16#cc, N:8, R/binary>>) -> {N, R};
value(<<16#cd, N:16, R/binary>>) -> {N, R};
value(<<16#ce, N:32, R/binary>>) -> {N, R};
value(<<16#cf, N:64, R/binary>>) -> {N, R};
value(<<16#d0, N:8/signed, R/binary>>) -> {N, R};
value(<<16#d1, N:16/signed, R/binary>>) -> {N, R};
value(<<16#d2, N:32/signed, R/binary>>) -> {N, R};
value(<<16#d3, N:64/signed, R/binary>>) -> {N, R};
value(<<16#d9, N:8, S:N/binary, R/binary>>) -> {S, R};
value(<<16#da, N:16, S:N/binary, R/binary>>) -> {S, R};
value(<<16#db, N:32, S:N/binary, R/binary>>) -> {S, R};
value(<<16#dc, N:16, R/binary>>) -> items(N, R, []);
value(<<16#dd, N:32, R/binary>>) -> items(N, R, []);
value(<<16#de, N:16, R/binary>>) -> pairs(N, R, #{});
value(<<16#df, N:32, R/binary>>) -> pairs(N, R, #{}).

items(0, R, L) -> {lists:reverse(L), R};
items(N, R, L) -> {V, R1} = value(R), items(N - 1, R1, [V | L]).

pairs(0, R, M) -> {M, R};
pairs(N, R, M) -> {K, R1} = value(R), {V, R2} = value(R1), pairs(N - 1, R2, M#{K => V}).
