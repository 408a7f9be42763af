# OpenWhisk's action interface in forty lines of Perl: one activation at a time, and it dies when two overlap, as
# OpenWhisk's Python runtime does. Its code is its own; /init tells it no more than a name.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die "no socket: $!";
my $sockets = IO::Select->new($server);
my (%buffers, $name, $running, $left);
my ($runs, $had_code) = (0, 'false');

sub answer {
    my ($socket, $status, $json) = @_;
    my $length = length $json;
    print $socket "HTTP/1.1 $status X\r\ncontent-type: application/json\r\ncontent-length: $length\r\n\r\n$json";
    $socket->flush;
}

sub serve {
    my ($socket, $path, $body) = @_;
    if ($path eq '/init') {
        return answer($socket, 403, '{"error":"initialised already"}') if defined $name;
        ($name) = $body =~ /"name":\s*"([^"]*)"/;
        $had_code = 'true' if $body =~ /"code":/;
        return answer($socket, 200, '{"ok":true}');
    }
    return answer($socket, 404, '{"error":"no such path"}') if $path ne '/run';
    die "two activations overlap\n" if $running;
    my ($sleep_ms) = $body =~ /"sleep_ms":\s*(\d+)/;
    ($running, $left) = ($socket, ($sleep_ms || 0) / 1000);
}

while (1) {
    # Linux tells how much of the time is left; Perl's small base has no finer clock.
    my $readable = $sockets->bits;
    (undef, my $rest) = select $readable, undef, undef, $running ? $left : undef;
    $left = $rest if $running;
    for my $socket (grep { vec $readable, fileno $_, 1 } $sockets->handles) {
        if ($socket == $server) {
            $sockets->add($server->accept);
            next;
        }
        if (!sysread $socket, $buffers{$socket}, 65536, length($buffers{$socket} // '')) {
            $sockets->remove($socket);
            delete $buffers{$socket};
            close $socket;
            next;
        }
        if ($buffers{$socket} =~ /^POST (\S+) .*?content-length:\s*(\d+).*?\r\n\r\n(.*)$/is && length $3 >= $2) {
            my ($path, $body) = ($1, $3);
            $buffers{$socket} = '';
            serve($socket, $path, $body);
        }
    }
    if ($running && $left <= 0) {
        my $socket = $running;
        $running = undef;
        $runs++;
        answer($socket, 200, "{\"name\":\"$name\",\"runs\":$runs,\"had_code\":$had_code,\"pid\":$$}");
    }
}
